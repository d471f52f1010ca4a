package io.kvtier.wire;

import com.google.protobuf.ByteString;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import java.util.zip.CRC32C;

/** The checksum that goes with partials of attention over the network. */
public final class PartialChecksum {
  private PartialChecksum() {}

  /**
   * CRC32C of outputs and log-sum-exps.
   *
   * @param output the tensor's bytes
   */
  public static int of(ByteString output, List<Float> lse) {
    CRC32C crc = new CRC32C();
    output.asReadOnlyByteBufferList().forEach(crc::update);
    ByteBuffer bytes = ByteBuffer.allocate(lse.size() * Float.BYTES);
    bytes.order(ByteOrder.LITTLE_ENDIAN);
    lse.forEach(bytes::putFloat);
    crc.update(bytes.flip());
    return (int) crc.getValue();
  }
}
