package io.kvtier.deploy.bench.decode;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PageConsumer;
import io.kvtier.client.PageTransport;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import io.kvtier.page.TokenRows;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.LockSupport;
import java.util.function.ObjIntConsumer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A tier of one session in this process that answers reads as one at a distance would: a round trip
 * and the time of the bytes after they were asked for. Stores at once.
 */
final class DistantTier implements PageTransport {
  private final PageLayout layout;
  private final long roundTripNs;
  private final double bytesPerNs;
  private final Map<PageKey, ByteString> pages = new ConcurrentHashMap<>();

  /**
   * A tier.
   *
   * @param bytesPerNs what the network carries, in bytes a nanosecond
   */
  DistantTier(PageLayout layout, long roundTripNs, double bytesPerNs) {
    this.layout = layout;
    this.roundTripNs = roundTripNs;
    this.bytesPerNs = bytesPerNs;
  }

  @Override
  public void put(List<KeyedPage> batch) {
    batch.forEach(page -> pages.put(page.key(), page.page()));
  }

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    long startNs = System.nanoTime();
    long bytes = keys.stream().mapToLong(key -> stored(key).size()).sum();
    arrive(startNs, bytes);
    for (int i = 0; i < keys.size(); i++) {
      consumer.accept(stored(keys.get(i)), i);
    }
  }

  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    long startNs = System.nanoTime();
    List<ByteString> answers = wanted.stream().map(this::sections).toList();
    arrive(startNs, answers.stream().mapToLong(ByteString::size).sum());
    for (int i = 0; i < answers.size(); i++) {
      consumer.accept(answers.get(i), i);
    }
  }

  private ByteString sections(SectionsOf wanted) {
    ByteString page = stored(PageKey.of(wanted.getKey()));
    ByteString data = ByteString.EMPTY;
    for (int head = 0; head < layout.kvHeads(); head++) {
      long heads = head < Long.SIZE ? wanted.getHeadsLow() : wanted.getHeadsHigh();
      for (int left = (heads >>> head & 1) == 0 ? 0 : wanted.getSections();
          left != 0;
          left &= left - 1) {
        Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
        int at = layout.offset(head, section);
        data = data.concat(page.substring(at, at + layout.length(section)));
      }
    }
    return data;
  }

  @Override
  public void readRows(PageLayout of, List<RowsOf> wanted, PageConsumer consumer) {
    long startNs = System.nanoTime();
    UnsafeBuffer[] answers = new UnsafeBuffer[wanted.size()];
    long bytes = 0;
    for (int i = 0; i < answers.length; i++) {
      answers[i] = rows(wanted.get(i));
      bytes += answers[i].capacity();
    }
    arrive(startNs, bytes);
    for (int i = 0; i < answers.length; i++) {
      consumer.accept(answers[i], 0, answers[i].capacity(), i);
    }
  }

  private UnsafeBuffer rows(RowsOf wanted) {
    TokenRows rows = new TokenRows(layout, wanted.getSections());
    UnsafeBuffer page =
        new UnsafeBuffer(stored(PageKey.of(wanted.getKey())).asReadOnlyByteBuffer());
    int count = wanted.getTokensList().stream().mapToInt(Long::bitCount).sum();
    UnsafeBuffer taken = new UnsafeBuffer(new byte[count * rows.length()]);
    int asked = 0;
    int at = 0;
    for (int head = 0; head < layout.kvHeads(); head++) {
      long heads = head < Long.SIZE ? wanted.getHeadsLow() : wanted.getHeadsHigh();
      long left = (heads >>> head & 1) == 0 ? 0 : wanted.getTokens(asked++);
      for (; left != 0; left &= left - 1) {
        rows.takeFromPage(page, 0, head, Long.numberOfTrailingZeros(left), taken, at);
        at += rows.length();
      }
    }
    return taken;
  }

  /** What this process takes to find the answer counts as the network's. */
  private void arrive(long startNs, long bytes) {
    long dueNs = startNs + roundTripNs + (long) (bytes / bytesPerNs);
    for (long leftNs = dueNs - System.nanoTime(); leftNs > 0; leftNs = dueNs - System.nanoTime()) {
      LockSupport.parkNanos(leftNs);
    }
  }

  private ByteString stored(PageKey key) {
    ByteString page = pages.get(key);
    if (page == null) {
      throw new KvtierException(Code.LOST, "page " + key + " is gone");
    }
    return page;
  }

  @Override
  public void delete(List<PageKey> keys) {
    keys.forEach(pages::remove);
  }

  @Override
  public void close() {
    pages.clear();
  }
}
