package io.kvtier.cachetier;

import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.page.Section;
import java.util.SplittableRandom;
import java.util.UUID;
import org.agrona.concurrent.UnsafeBuffer;

/** Valid pages with seeded contents, and their keys. */
public final class TestPages {
  /** The model that all test pages are of. */
  public static final Fingerprint MODEL =
      new Fingerprint(0x0123_4567_89AB_CDEFL, 0x0F1E_2D3C_4B5A_6978L);

  /** A small layout with all the sections of rot4. */
  public static final PageLayout ROT4 = new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64);

  private TestPages() {}

  /** A layout of raw16, for pages of other lengths. */
  public static PageLayout raw16(int kvHeads, int headDim) {
    return new PageLayout(Codec.RAW16, Codec.RAW16, kvHeads, headDim);
  }

  public static PageKey key(long session, int index, int layer, PageLayout layout) {
    return PageKey.ofSession(
        new UUID(session, session * 0x9E37_79B9_7F4A_7C15L), index, MODEL, layer, layout);
  }

  /** A key for stores, which do not look at pages. */
  public static PageKey key(int index) {
    return key(1, index, 0, ROT4);
  }

  /** A sealed page; the same arguments give the same bytes. */
  public static UnsafeBuffer page(PageLayout layout, int layer, long seed) {
    UnsafeBuffer page = new UnsafeBuffer(new byte[layout.pageLength()]);
    SplittableRandom random = new SplittableRandom(seed);
    for (int head = 0; head < layout.kvHeads(); head++) {
      for (int id = 0; id < Section.count(); id++) {
        if ((layout.sections() & 1 << id) != 0) {
          Section section = Section.ofId(id);
          byte[] bytes = bytes(random, layout.length(section));
          page.putBytes(layout.offset(head, section), bytes);
        }
      }
    }
    Pages.seal(page, 0, layout, new PageIdentity(MODEL, layer, 0, PageLayout.TOKENS));
    return page;
  }

  /** Seeded bytes that are no page. */
  public static byte[] bytes(long seed, int length) {
    return bytes(new SplittableRandom(seed), length);
  }

  private static byte[] bytes(SplittableRandom random, int length) {
    byte[] bytes = new byte[length];
    random.nextBytes(bytes);
    return bytes;
  }
}
