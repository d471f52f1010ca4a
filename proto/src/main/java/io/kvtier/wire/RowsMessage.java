package io.kvtier.wire;

import io.kvtier.page.Checksums;
import io.kvtier.v1.Miss;
import java.nio.ByteOrder;
import org.agrona.MutableDirectBuffer;

/**
 * Writes a GetRowsResponse into one piece of memory, page by page, so that rows go from where their
 * page lies straight to where they are sent from. Static methods over buffers; bounds are the
 * caller's.
 */
public final class RowsMessage {
  private static final int PAGES = 1;
  private static final int INDEX = 1;
  private static final int MISS = 2;
  private static final int DATA = 3;
  private static final int CHECKSUM_TAG = 4 << 3 | 5;
  private static final int CHECKSUM_BYTES = 1 + Integer.BYTES;
  private static final int VARINT_BYTES_MAX = 5;
  private static final int HEAD_BYTES_MAX = 8 * VARINT_BYTES_MAX;

  private RowsMessage() {}

  /** Memory that a message is written into. */
  public interface Room {
    /** The memory, at least {@code bytes} long, with its first {@code kept} bytes kept. */
    MutableDirectBuffer ensure(int bytes, int kept);
  }

  /** Most bytes that a page takes in the message. */
  public static int bytesMax(int dataBytes) {
    return HEAD_BYTES_MAX + dataBytes + CHECKSUM_BYTES;
  }

  /** Begins a page; its rows follow where this returns, {@code dataBytes} of them. */
  public static int begin(MutableDirectBuffer target, int at, int index, int dataBytes) {
    Fields inner = new Fields(3 * VARINT_BYTES_MAX);
    inner.uint32(INDEX, index);
    inner.bytesHead(DATA, dataBytes);
    return head(target, at, inner, dataBytes + CHECKSUM_BYTES);
  }

  /** Ends a page whose rows have been written; returns where the next one begins. */
  public static int end(MutableDirectBuffer target, int dataAt, int dataBytes) {
    int at = dataAt + dataBytes;
    target.putByte(at, (byte) CHECKSUM_TAG);
    int checksum = Checksums.crc32c(target, dataAt, dataBytes);
    target.putInt(at + 1, checksum, ByteOrder.LITTLE_ENDIAN);
    return at + CHECKSUM_BYTES;
  }

  /** Writes a page that is not served; returns where the next one begins. */
  public static int miss(MutableDirectBuffer target, int at, int index, Miss reason) {
    Fields inner = new Fields(4 * VARINT_BYTES_MAX);
    inner.uint32(INDEX, index);
    inner.uint32(MISS, reason.getNumber());
    return head(target, at, inner, 0);
  }

  private static int head(MutableDirectBuffer target, int at, Fields inner, int bytesAfter) {
    Fields outer = new Fields(HEAD_BYTES_MAX);
    outer.bytesHead(PAGES, inner.length() + bytesAfter);
    outer.append(inner);
    target.putBytes(at, outer.array(), 0, outer.length());
    return at + outer.length();
  }
}
