package io.kvtier.page;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import java.nio.ByteBuffer;
import java.util.HexFormat;

/** The 16 bytes that name a model's weights. */
public record Fingerprint(long high, long low) {
  /**
   * Reads a fingerprint from the wire.
   *
   * @throws KvtierException INVALID if the bytes are not 16
   */
  public static Fingerprint of(ByteString bytes) {
    if (bytes.size() != PageHeaderFlyweight.FINGERPRINT_LENGTH) {
      throw KvtierException.invalid(
          "model_fingerprint has %d bytes; it must have %d, for example the first half of a"
              + " SHA-256",
          bytes.size(), PageHeaderFlyweight.FINGERPRINT_LENGTH);
    }
    ByteBuffer buffer = bytes.asReadOnlyByteBuffer();
    return new Fingerprint(buffer.getLong(), buffer.getLong());
  }

  public byte[] toBytes() {
    return ByteBuffer.allocate(PageHeaderFlyweight.FINGERPRINT_LENGTH)
        .putLong(high)
        .putLong(low)
        .array();
  }

  @Override
  public String toString() {
    return HexFormat.of().formatHex(toBytes());
  }
}
