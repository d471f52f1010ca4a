package io.kvtier.cachetier;

import io.kvtier.page.PageKey;
import java.util.function.ObjIntConsumer;
import org.agrona.DirectBuffer;
import org.jspecify.annotations.Nullable;

/** A store that hands everything on to another, which it owns; what differs is overridden. */
public abstract class ForwardingPageStore implements PageStore {
  protected final PageStore store;

  protected ForwardingPageStore(PageStore store) {
    this.store = store;
  }

  @Override
  public PutResult put(PageKey key, DirectBuffer page, int offset, int length) {
    return store.put(key, page, offset, length);
  }

  @Override
  public <R> @Nullable R read(PageKey key, PageReader<R> reader) {
    return store.read(key, reader);
  }

  @Override
  public boolean contains(PageKey key) {
    return store.contains(key);
  }

  @Override
  public boolean delete(PageKey key) {
    return store.delete(key);
  }

  @Override
  public boolean deleteIf(PageKey key, PageReader<Boolean> condition) {
    return store.deleteIf(key, condition);
  }

  @Override
  public void forEach(ObjIntConsumer<PageKey> visitor) {
    store.forEach(visitor);
  }

  @Override
  public long pages() {
    return store.pages();
  }

  @Override
  public long bytesUsed() {
    return store.bytesUsed();
  }

  @Override
  public long bytesMax() {
    return store.bytesMax();
  }

  @Override
  public void close() {
    store.close();
  }
}
