package io.kvtier.gpuworker.grpc;

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

/** A tier in a map, for a rehearsal. Safe for any number of threads. */
final class RehearsalPages implements PageTransport {
  private final PageLayout layout;
  private final Map<PageKey, ByteString> pages = new ConcurrentHashMap<>();

  /** An empty one, whose pages' sections are read by a layout. */
  RehearsalPages(PageLayout layout) {
    this.layout = layout;
  }

  @Override
  public void put(List<KeyedPage> batch) {
    batch.forEach(page -> pages.put(page.key(), page.page()));
  }

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    for (int i = 0; i < keys.size(); i++) {
      consumer.accept(stored(keys.get(i)), i);
    }
  }

  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    for (int i = 0; i < wanted.size(); i++) {
      consumer.accept(sections(wanted.get(i)), i);
    }
  }

  private ByteString sections(SectionsOf wanted) {
    ByteString page = stored(PageKey.of(wanted.getKey()));
    ByteString data = ByteString.EMPTY;
    for (long heads = wanted.getHeadsLow(); heads != 0; heads &= heads - 1) {
      int head = Long.numberOfTrailingZeros(heads);
      for (int ids = wanted.getSections(); ids != 0; ids &= ids - 1) {
        Section section = Section.ofId(Integer.numberOfTrailingZeros(ids));
        int at = layout.offset(head, section);
        data = data.concat(page.substring(at, at + layout.length(section)));
      }
    }
    return data;
  }

  private ByteString stored(PageKey key) {
    ByteString page = pages.get(key);
    if (page == null) {
      throw new KvtierException(Code.LOST, "the rehearsal has stored no such page");
    }
    return page;
  }

  @Override
  public void delete(List<PageKey> keys) {
    keys.forEach(pages::remove);
  }

  @Override
  public void close() {}
}
