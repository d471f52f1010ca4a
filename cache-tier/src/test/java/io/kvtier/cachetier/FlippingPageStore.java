package io.kvtier.cachetier;

import io.kvtier.page.PageKey;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/** A store whose memory fails: whoever looks at some pages sees one bit flipped. */
public final class FlippingPageStore extends ForwardingPageStore {
  private final Map<PageKey, Integer> flippedAt = new ConcurrentHashMap<>();

  public FlippingPageStore(PageStore store) {
    super(store);
  }

  /**
   * From now on the lowest bit of one byte of the key's page reads wrongly, until the page is
   * removed.
   */
  public void flip(PageKey key, int at) {
    flippedAt.put(key, at);
  }

  private <R> PageReader<R> seenBy(PageKey key, PageReader<R> reader) {
    Integer at = flippedAt.get(key);
    if (at == null) {
      return reader;
    }
    return (page, offset, length) -> {
      byte[] copy = new byte[length];
      page.getBytes(offset, copy);
      copy[at] ^= 1;
      return reader.read(new UnsafeBuffer(copy), 0, length);
    };
  }

  @Override
  public <R> @Nullable R read(PageKey key, PageReader<R> reader) {
    return store.read(key, seenBy(key, reader));
  }

  @Override
  public boolean deleteIf(PageKey key, PageReader<Boolean> condition) {
    boolean deleted = store.deleteIf(key, seenBy(key, condition));
    if (deleted) {
      flippedAt.remove(key);
    }
    return deleted;
  }
}
