package io.kvtier.deploy.bench;

import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.client.PagesClient;
import io.kvtier.client.PagesClient.Option;
import io.kvtier.deploy.bench.Duel.Contender;
import io.kvtier.deploy.bench.Duel.Outcome;
import io.kvtier.deploy.bench.Duel.Side;
import io.kvtier.page.Section;
import io.kvtier.page.TokenRows;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * What a step of a sparse layer fetches: the codes of 1,000 chosen tokens on 300 pages, one head of
 * each, from a cache tier in a process of its own. As rows, and as the sections that they are in.
 */
public final class RowsBenchmark implements Benchmark {
  private static final int PAGES = 300;
  private static final int ROWS = 1000;
  private static final int CODES = Section.set(Section.K_FINE, Section.V_CODES, Section.V_SCALES);
  private static final long TIER_BYTES_MAX = 256 << 20;
  private static final Duration DEADLINE = Duration.ofSeconds(30);

  private enum Way {
    TCP("TCP"),
    UNIX("Unix socket"),
    FILES("in the tier's files");

    final String text;

    Way(String text) {
      this.text = text;
    }
  }

  @Override
  public String name() {
    return "rows";
  }

  @Override
  public String description() {
    return "1,000 tokens' codes from a cache tier in its own process: rows beside whole sections";
  }

  @Override
  public List<BenchRow> run(BenchSettings settings, Progress progress) {
    List<KeyedPage> pages = TierPages.of(PAGES);
    List<SectionsOf> sections = new ArrayList<>();
    List<RowsOf> rows = new ArrayList<>();
    ask(pages, sections, rows);
    try (Closing closing = new Closing()) {
      TierProcess tier =
          closing.add(TierProcess.start(TierProcess.directory(closing), TIER_BYTES_MAX));
      List<BenchRow> result = new ArrayList<>();
      for (Way way : Way.values()) {
        boolean unix = way != Way.TCP;
        Option[] options = way == Way.FILES ? new Option[0] : new Option[] {Option.WIRE_ONLY};
        try (PagesClient client = new PagesClient(tier.target(unix), DEADLINE, options)) {
          client.put(pages);
          String name = "1,000 rows / their sections, " + way.text;
          Outcome outcome =
              Duel.run(
                  new Side(tier.process(), List.of(rows(client, rows))),
                  new Side(tier.process(), List.of(sections(client, sections))),
                  (long) ROWS * new TokenRows(TierPages.LAYOUT, CODES).length(),
                  progress,
                  name);
          double a = outcome.ours().p50Us();
          double b = outcome.reference().p50Us();
          result.add(new BenchRow(name + ", p50", a, b, a / b, "us", "", command()));
        }
      }
      return result;
    } catch (IOException e) {
      throw new UncheckedIOException("no directory for the tier of the benchmark", e);
    }
  }

  private static void ask(List<KeyedPage> pages, List<SectionsOf> sections, List<RowsOf> rows) {
    SplittableRandom random = new SplittableRandom(2);
    int left = ROWS;
    for (int i = 0; i < PAGES; i++) {
      long head = 1L << random.nextInt(TierPages.LAYOUT.kvHeads());
      long tokens = 0;
      int count = left / (PAGES - i);
      left -= count;
      while (Long.bitCount(tokens) < count) {
        tokens |= 1L << random.nextInt(Long.SIZE);
      }
      SectionsOf whole =
          SectionsOf.newBuilder()
              .setKey(pages.get(i).key().toByteString())
              .setHeadsLow(head)
              .setSections(CODES)
              .build();
      sections.add(whole);
      rows.add(
          RowsOf.newBuilder()
              .setKey(whole.getKey())
              .setHeadsLow(head)
              .setSections(CODES)
              .addTokens(tokens)
              .build());
    }
  }

  private static Contender rows(PagesClient client, List<RowsOf> wanted) {
    UnsafeBuffer target =
        new UnsafeBuffer(ByteBuffer.allocateDirect(TierPages.LAYOUT.lengthOf(CODES)));
    return () ->
        client.readRows(
            TierPages.LAYOUT,
            wanted,
            (bytes, offset, length, index) -> bytes.getBytes(offset, target, 0, length));
  }

  private static Contender sections(PagesClient client, List<SectionsOf> wanted) {
    UnsafeBuffer target =
        new UnsafeBuffer(ByteBuffer.allocateDirect(TierPages.LAYOUT.lengthOf(CODES)));
    return () ->
        client.readSections(
            wanted, (bytes, offset, length, index) -> bytes.getBytes(offset, target, 0, length));
  }
}
