package io.kvtier.gpuworker.session;

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
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.ObjIntConsumer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A tier in a map that can be told to fail: to be away, to be full, to lose pages, to answer short.
 */
final class FaultyTransport implements PageTransport {
  /** What it does wrong. */
  enum Fault {
    NONE,
    AWAY,
    FULL,
    SHORT
  }

  final Map<PageKey, ByteString> pages = new ConcurrentHashMap<>();
  volatile Fault fault = Fault.NONE;

  /** Rows that have been read. */
  final AtomicInteger rowsRead = new AtomicInteger();

  private final PageLayout layout;

  FaultyTransport(PageLayout layout) {
    this.layout = layout;
  }

  private void mayFail() {
    if (fault == Fault.AWAY) {
      throw new KvtierException(Code.UNAVAILABLE, "the tier does not answer");
    }
  }

  @Override
  public void put(List<KeyedPage> batch) {
    mayFail();
    if (fault == Fault.FULL) {
      throw new KvtierException(Code.EXHAUSTED, "tier is full");
    }
    batch.forEach(page -> pages.putIfAbsent(page.key(), page.page()));
  }

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    mayFail();
    for (int i = 0; i < keys.size(); i++) {
      consumer.accept(stored(keys.get(i)), i);
    }
  }

  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    mayFail();
    for (int i = 0; i < wanted.size(); i++) {
      ByteString data = sections(wanted.get(i));
      consumer.accept(fault == Fault.SHORT ? data.substring(0, data.size() - 1) : data, i);
    }
  }

  private ByteString sections(SectionsOf wanted) {
    ByteString page = stored(PageKey.of(wanted.getKey()));
    ByteString data = ByteString.EMPTY;
    for (int head = 0; head < layout.kvHeads(); head++) {
      if ((wanted.getHeadsLow() >>> head & 1) == 1) {
        for (int id = 0; id < Section.count(); id++) {
          if ((wanted.getSections() >>> id & 1) == 1) {
            int at = layout.offset(head, Section.ofId(id));
            data = data.concat(page.substring(at, at + layout.length(Section.ofId(id))));
          }
        }
      }
    }
    return data;
  }

  @Override
  public void readRows(PageLayout of, List<RowsOf> wanted, PageConsumer consumer) {
    mayFail();
    for (int i = 0; i < wanted.size(); i++) {
      rowsRead.addAndGet(wanted.get(i).getTokensList().stream().mapToInt(Long::bitCount).sum());
      UnsafeBuffer rows = rows(wanted.get(i));
      consumer.accept(rows, 0, rows.capacity() - (fault == Fault.SHORT ? 1 : 0), i);
    }
  }

  private UnsafeBuffer rows(RowsOf wanted) {
    UnsafeBuffer page = new UnsafeBuffer(stored(PageKey.of(wanted.getKey())).toByteArray());
    TokenRows rows = new TokenRows(layout, wanted.getSections());
    int count = wanted.getTokensList().stream().mapToInt(Long::bitCount).sum();
    UnsafeBuffer taken = new UnsafeBuffer(new byte[count * rows.length()]);
    int asked = 0;
    int at = 0;
    for (int head = 0; head < layout.kvHeads(); head++) {
      if ((wanted.getHeadsLow() >>> head & 1) == 1) {
        for (long left = wanted.getTokens(asked++); left != 0; left &= left - 1) {
          rows.takeFromPage(page, 0, head, Long.numberOfTrailingZeros(left), taken, at);
          at += rows.length();
        }
      }
    }
    return taken;
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
    mayFail();
    keys.forEach(pages::remove);
  }

  @Override
  public void close() {}
}
