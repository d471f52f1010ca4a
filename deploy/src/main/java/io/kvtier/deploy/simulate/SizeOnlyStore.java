package io.kvtier.deploy.simulate;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.PageReader;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.page.PageKey;
import java.util.HashMap;
import java.util.Map;
import java.util.function.ObjIntConsumer;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/** A store that knows keys and lengths and keeps no bytes. For one thread. */
final class SizeOnlyStore implements PageStore {
  private static final DirectBuffer NOTHING = new UnsafeBuffer(new byte[0]);

  private final long bytesMax;
  private final Map<PageKey, Integer> lengths = new HashMap<>();
  private long bytesUsed;

  SizeOnlyStore(long bytesMax) {
    this.bytesMax = bytesMax;
  }

  @Override
  public PutResult put(PageKey key, DirectBuffer page, int offset, int length) {
    if (lengths.containsKey(key)) {
      return PutResult.EXISTED;
    }
    if (length > bytesMax - bytesUsed) {
      throw new KvtierException(
          Code.EXHAUSTED, "%d of %d bytes are used".formatted(bytesUsed, bytesMax));
    }
    lengths.put(key, length);
    bytesUsed += length;
    return PutResult.STORED;
  }

  @Override
  public <R> @Nullable R read(PageKey key, PageReader<R> reader) {
    Integer length = lengths.get(key);
    return length == null ? null : reader.read(NOTHING, 0, length);
  }

  @Override
  public boolean contains(PageKey key) {
    return lengths.containsKey(key);
  }

  @Override
  public boolean delete(PageKey key) {
    return deleteIf(key, (page, offset, length) -> true);
  }

  @Override
  public boolean deleteIf(PageKey key, PageReader<Boolean> condition) {
    Integer length = lengths.get(key);
    if (length == null || !condition.read(NOTHING, 0, length)) {
      return false;
    }
    lengths.remove(key);
    bytesUsed -= length;
    return true;
  }

  @Override
  public void forEach(ObjIntConsumer<PageKey> visitor) {
    lengths.forEach(visitor::accept);
  }

  @Override
  public long pages() {
    return lengths.size();
  }

  @Override
  public long bytesUsed() {
    return bytesUsed;
  }

  @Override
  public long bytesMax() {
    return bytesMax;
  }

  @Override
  public void close() {
    lengths.clear();
    bytesUsed = 0;
  }
}
