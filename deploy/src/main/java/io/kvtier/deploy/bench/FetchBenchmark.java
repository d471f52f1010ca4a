package io.kvtier.deploy.bench;

import static io.kvtier.page.PageLayout.TOKENS;

import com.google.protobuf.ByteString;
import io.kvtier.cachetier.CacheTier;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.client.PagesClient;
import io.kvtier.codec.PageEncoder;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.rpc.EndpointConfig;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.UUID;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Pages of Llama-3.1-8B's geometry from a cache tier over gRPC on loopback, against memcpy of the
 * same bytes.
 */
public final class FetchBenchmark implements Benchmark {
  private static final int PAGES = 32;

  @Override
  public String name() {
    return "fetch";
  }

  @Override
  public String description() {
    return "a batch of 32 pages from the cache tier over gRPC on loopback, against memcpy of its"
        + " bytes";
  }

  @Override
  public List<BenchRow> run(BenchSettings settings, Progress progress) {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 8, 128);
    CacheTierConfig config =
        new CacheTierConfig(EndpointConfig.loopback(), 64L << 20, Optional.empty());
    try (CacheTier tier = CacheTier.start(config);
        PagesClient client = new PagesClient(tier.target(), Duration.ofSeconds(30))) {
      List<KeyedPage> pages = pages(layout);
      client.put(pages);
      List<PageKey> keys = pages.stream().map(KeyedPage::key).toList();
      byte[] source = new byte[PAGES * layout.pageLength()];
      byte[] target = new byte[source.length];
      Runnable fetch =
          () -> client.get(keys, (page, index) -> page.copyTo(target, index * layout.pageLength()));
      Runnable copy = () -> System.arraycopy(source, 0, target, 0, source.length);
      double[] seconds = Turns.medianSeconds(fetch, copy, progress, "batch");
      double ours = source.length / 1e9 / seconds[0];
      double reference = source.length / 1e9 / seconds[1];
      return List.of(
          new BenchRow(
              "batch of 32 pages / memcpy",
              ours,
              reference,
              ours / reference,
              "GB/s",
              "",
              command()));
    }
  }

  private static List<KeyedPage> pages(PageLayout layout) {
    SplittableRandom random = new SplittableRandom(1);
    Fingerprint model = new Fingerprint(1, 1);
    UUID session = new UUID(1, 1);
    PageEncoder encoder = new PageEncoder(layout);
    List<KeyedPage> pages = new ArrayList<>();
    float[] rows = new float[TOKENS * 8 * 128];
    for (int index = 0; index < PAGES; index++) {
      for (int i = 0; i < rows.length; i++) {
        rows[i] = (float) random.nextGaussian();
      }
      byte[] page = new byte[layout.pageLength()];
      PageIdentity identity = new PageIdentity(model, 0, index * TOKENS, TOKENS);
      encoder.encode(identity, rows, rows, new UnsafeBuffer(page), 0);
      PageKey key = PageKey.ofSession(session, index, model, 0, layout);
      pages.add(new KeyedPage(key, ByteString.copyFrom(page)));
    }
    return pages;
  }
}
