package io.kvtier.cachetier.near;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.PageGroupAttention;
import io.kvtier.attention.ReferenceAttention;
import io.kvtier.cachetier.FlippingPageStore;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.codec.PageDecoder;
import io.kvtier.codec.PageEncoder;
import io.kvtier.page.Codec;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A store with encoded pages of one layer, and what a client that fetched them would compute. The
 * last page is short. Public for the tests of the service.
 */
public final class NearFixture implements AutoCloseable {
  public static final int PAGES = 6;
  public static final int SHORT_TOKENS = 41;
  public static final int KV_HEADS = 3;
  public static final int GROUP = 4;

  public final PageLayout layout;
  public final FlippingPageStore store =
      new FlippingPageStore(ChroniclePageStore.openTemporary(32 << 20));
  public final PageService pages = new PageService(store);
  public final List<PageKey> keys = new ArrayList<>();

  /** {@code [kvHeads][group][headDim]}. */
  public final float[] queries;

  private final SplittableRandom random = new SplittableRandom(9);
  private final List<UnsafeBuffer> encoded = new ArrayList<>();

  public NearFixture(int headDim) {
    layout = new PageLayout(Codec.ROT4, Codec.ROT4, KV_HEADS, headDim);
    queries = gaussian(KV_HEADS * GROUP * headDim, 1.5);
    PageEncoder encoder = new PageEncoder(layout);
    for (int i = 0; i < PAGES; i++) {
      float[] k = gaussian(PageLayout.TOKENS * KV_HEADS * headDim, 1);
      float[] v = gaussian(PageLayout.TOKENS * KV_HEADS * headDim, 1);
      UnsafeBuffer page = new UnsafeBuffer(new byte[layout.pageLength()]);
      encoder.encode(
          new PageIdentity(TestPages.MODEL, 2, i * PageLayout.TOKENS, tokens(i)), k, v, page, 0);
      PageKey key = TestPages.key(1, i, 2, layout);
      pages.put(key, page, 0, layout.pageLength());
      encoded.add(page);
      keys.add(key);
    }
  }

  static int tokens(int page) {
    return page == PAGES - 1 ? SHORT_TOKENS : PageLayout.TOKENS;
  }

  static long all(int page) {
    return tokens(page) == PageLayout.TOKENS ? -1L : (1L << tokens(page)) - 1;
  }

  private float[] gaussian(int length, double deviation) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) (random.nextGaussian() * deviation);
    }
    return x;
  }

  /** Queries of some heads alone. */
  public float[] queriesOf(int... heads) {
    int length = GROUP * layout.headDim();
    float[] some = new float[heads.length * length];
    for (int i = 0; i < heads.length; i++) {
      System.arraycopy(queries, heads[i] * length, some, i * length, length);
    }
    return some;
  }

  NearRequest request(int planes, long[] tokens, int... heads) {
    return new NearRequest(keys, heads, GROUP, layout.headDim(), queriesOf(heads), planes, tokens);
  }

  /** What a client computes that has fetched the pages: output of a head, then its log-sum-exps. */
  public float[] attendHere(int head, long[] tokens, Kernels kernels) {
    int headDim = layout.headDim();
    PageGroupAttention attention = new PageGroupAttention(GROUP, headDim, kernels);
    attention.begin(queriesOf(head), 0, false);
    forEachPage((page, address) ->
        attention.attend(HeadOffsets.inPage(layout, head), address, tokens[page]));
    float[] output = new float[GROUP * headDim];
    float[] lse = new float[GROUP];
    attention.finish(output, 0, lse, 0);
    float[] both = java.util.Arrays.copyOf(output, output.length + GROUP);
    System.arraycopy(lse, 0, both, output.length, GROUP);
    return both;
  }

  /** Scores likewise, {@code [group][pages][64]}. */
  public float[] scoreHere(int head, int planes, Kernels kernels) {
    PageGroupAttention attention = new PageGroupAttention(GROUP, layout.headDim(), kernels);
    attention.begin(queriesOf(head), 0, planes < 4);
    int stride = PAGES * PageLayout.TOKENS;
    float[] scores = new float[GROUP * stride];
    forEachPage((page, address) ->
        attention.score(
            HeadOffsets.inPage(layout, head),
            address,
            planes,
            all(page),
            scores,
            page * PageLayout.TOKENS,
            stride));
    return scores;
  }

  private interface PageUse {
    void use(int page, long address);
  }

  private void forEachPage(PageUse use) {
    try (Arena arena = Arena.ofConfined()) {
      long address = arena.allocate(layout.pageLength() + 64L, 64).address();
      UnsafeBuffer copy = new UnsafeBuffer(address, layout.pageLength());
      for (int page = 0; page < PAGES; page++) {
        copy.putBytes(0, encoded.get(page), 0, layout.pageLength());
        use.use(page, address);
      }
    }
  }

  /** Requires that a head's output is plain attention over the decoded rows of some tokens. */
  void requireReference(int head, long[] tokens, float[] output, int at, float[] lse, int lseAt) {
    int headDim = layout.headDim();
    List<float[]> k = new ArrayList<>();
    List<float[]> v = new ArrayList<>();
    PageDecoder decoder = new PageDecoder(layout);
    for (int page = 0; page < PAGES; page++) {
      float[] keyRows = new float[PageLayout.TOKENS * headDim];
      float[] valueRows = new float[PageLayout.TOKENS * headDim];
      decoder.keys(encoded.get(page), 0, head, tokens(page), keyRows, 0, headDim);
      decoder.values(encoded.get(page), 0, head, tokens(page), valueRows, 0, headDim);
      for (int t = 0; t < PageLayout.TOKENS; t++) {
        if ((tokens[page] >>> t & 1) != 0) {
          k.add(java.util.Arrays.copyOfRange(keyRows, t * headDim, (t + 1) * headDim));
          v.add(java.util.Arrays.copyOfRange(valueRows, t * headDim, (t + 1) * headDim));
        }
      }
    }
    for (int g = 0; g < GROUP; g++) {
      float[] expected = new float[headDim];
      double expectedLse =
          ReferenceAttention.attend(
              queriesOf(head),
              g * headDim,
              joined(k, headDim),
              joined(v, headDim),
              0,
              headDim,
              k.size(),
              headDim,
              expected,
              0);
      assertThat((double) lse[lseAt + g])
          .isCloseTo(expectedLse, org.assertj.core.data.Offset.offset(2e-5));
      for (int i = 0; i < headDim; i++) {
        assertThat(output[at + g * headDim + i])
            .as("head %d, query %d, dimension %d", head, g, i)
            .isCloseTo(expected[i], org.assertj.core.data.Offset.offset(2e-5f));
      }
    }
  }

  private static float[] joined(List<float[]> rows, int headDim) {
    float[] all = new float[rows.size() * headDim];
    for (int i = 0; i < rows.size(); i++) {
      System.arraycopy(rows.get(i), 0, all, i * headDim, headDim);
    }
    return all;
  }

  @Override
  public void close() {
    store.close();
  }
}
