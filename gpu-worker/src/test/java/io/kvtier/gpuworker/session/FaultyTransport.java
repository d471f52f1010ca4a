package io.kvtier.gpuworker.session;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PageTransport;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import io.kvtier.v1.SectionsOf;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.ObjIntConsumer;

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
    batch.forEach(page -> pages.put(page.key(), page.page()));
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
