package io.kvtier.cachetier.chronicle;

import net.openhft.chronicle.bytes.BytesStore;
import net.openhft.chronicle.bytes.RandomDataInput;
import net.openhft.chronicle.bytes.RandomDataOutput;
import net.openhft.chronicle.hash.AbstractData;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/**
 * A page in the caller's buffer, on heap or off, as a value that Chronicle writes into an entry
 * with one copy. Valid until the caller's put returns.
 */
final class PageData extends AbstractData<byte[]> {
  private final DirectBuffer page;
  private final int offset;
  private final int length;

  PageData(DirectBuffer page, int offset, int length) {
    this.page = page;
    this.offset = offset;
    this.length = length;
  }

  /**
   * The entry's memory is off heap and at least {@code length} bytes long: Chronicle has just
   * allocated it. The raw type is Chronicle's own.
   */
  @Override
  @SuppressWarnings("rawtypes")
  public void writeTo(RandomDataOutput target, long targetOffset) {
    UnsafeBuffer entry = new UnsafeBuffer(target.addressForWrite(targetOffset), length);
    page.getBytes(offset, entry, 0, length);
  }

  @Override
  public long size() {
    return length;
  }

  /** Only for paths that do not write, such as comparisons; copies. */
  @Override
  public RandomDataInput bytes() {
    return BytesStore.wrap(get());
  }

  @Override
  public long offset() {
    return 0;
  }

  @Override
  public byte[] get() {
    byte[] copy = new byte[length];
    page.getBytes(offset, copy);
    return copy;
  }

  @Override
  public byte[] getUsing(byte @Nullable [] using) {
    return get();
  }
}
