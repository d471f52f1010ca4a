package io.kvtier.page;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.zip.CRC32C;
import org.agrona.DirectBuffer;

/** CRC32C (Castagnoli) over buffers, on heap or off. */
public final class Checksums {
  private Checksums() {}

  /** The checksum of some bytes of a buffer. */
  public static int crc32c(DirectBuffer buffer, int offset, int length) {
    CRC32C crc = new CRC32C();
    update(crc, buffer, offset, length);
    return (int) crc.getValue();
  }

  /** {@code reinterpret} is restricted: the bounds check before it is what makes it safe. */
  @SuppressWarnings("restricted")
  static void update(CRC32C crc, DirectBuffer buffer, int offset, int length) {
    buffer.boundsCheck(offset, length);
    byte[] array = buffer.byteArray();
    if (array != null) {
      crc.update(array, buffer.wrapAdjustment() + offset, length);
    } else {
      ByteBuffer bytes =
          MemorySegment.ofAddress(buffer.addressOffset() + offset)
              .reinterpret(length)
              .asByteBuffer();
      crc.update(bytes);
    }
  }
}
