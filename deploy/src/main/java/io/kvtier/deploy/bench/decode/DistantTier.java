package io.kvtier.deploy.bench.decode;

import com.google.protobuf.ByteString;
import io.kvtier.client.NearPages;
import io.kvtier.client.PageConsumer;
import io.kvtier.client.PageTransport;
import io.kvtier.client.PagesClient;
import io.kvtier.deploy.bench.TierProcess;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.io.IOException;
import java.time.Duration;
import java.util.BitSet;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.locks.LockSupport;
import java.util.function.ObjIntConsumer;

/**
 * A tier further away than it is: whatever is asked of it goes out a round trip late. Stores and
 * removes without delay, since nobody waits for that. The tier is the caller's to close.
 */
final class DistantTier implements PageTransport {
  private static final long ROUND_TRIP_NS = 500_000;
  private static final long TIER_BYTES = 1L << 30;

  private final PageTransport tier;
  private final long roundTripNs;

  /**
   * A tier at a distance.
   *
   * @param roundTripNs added to each call
   */
  DistantTier(PageTransport tier, long roundTripNs) {
    this.tier = tier;
    this.roundTripNs = roundTripNs;
  }

  /** A tier in a process of its own, half a millisecond further away; ends with {@code closing}. */
  static DistantTier start(Closing closing) throws IOException {
    TierProcess process =
        closing.add(TierProcess.start(TierProcess.directory(closing), TIER_BYTES));
    PagesClient client =
        closing.add(
            new PagesClient(
                process.target(false),
                Duration.ofNanos(LongSession.TIMEOUT_NS),
                PagesClient.Option.WIRE_ONLY));
    return new DistantTier(client, ROUND_TRIP_NS);
  }

  private PageTransport distant() {
    long dueNs = System.nanoTime() + roundTripNs;
    for (long leftNs = roundTripNs; leftNs > 0; leftNs = dueNs - System.nanoTime()) {
      LockSupport.parkNanos(leftNs);
    }
    return tier;
  }

  @Override
  public void put(List<KeyedPage> batch) {
    tier.put(batch);
  }

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    distant().get(keys, consumer);
  }

  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    distant().getSections(wanted, consumer);
  }

  @Override
  public void read(List<PageKey> keys, PageConsumer consumer) {
    distant().read(keys, consumer);
  }

  @Override
  public void readSections(List<SectionsOf> wanted, PageConsumer consumer) {
    distant().readSections(wanted, consumer);
  }

  @Override
  public void readRows(PageLayout layout, List<RowsOf> wanted, PageConsumer consumer) {
    distant().readRows(layout, wanted, consumer);
  }

  @Override
  public Optional<NearPages.Attended> attend(
      List<PageKey> keys, NearPages.Queries queries, long[] tokens) {
    return distant().attend(keys, queries, tokens);
  }

  @Override
  public BitSet contains(List<PageKey> keys) {
    return distant().contains(keys);
  }

  @Override
  public void delete(List<PageKey> keys) {
    tier.delete(keys);
  }

  @Override
  public void close() {}
}
