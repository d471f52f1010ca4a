package io.kvtier.wire;

import io.grpc.Drainable;
import io.grpc.KnownLength;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import org.agrona.DirectBuffer;

/**
 * An outgoing message as gRPC takes it: of known length, so that one transport buffer of the right
 * size is allocated, and drained into it in one go. Memory off heap passes through an array that
 * stays in the first-level cache, since gRPC takes arrays alone.
 */
final class DrainedStream extends InputStream implements KnownLength, Drainable {
  private static final int CHUNK_BYTES = 8 << 10;

  /** Small, and as many as there are transport and handler threads. */
  private static final ThreadLocal<byte[]> CHUNK =
      ThreadLocal.withInitial(() -> new byte[CHUNK_BYTES]);

  private final OutgoingBytes message;
  private boolean drained;

  DrainedStream(OutgoingBytes message) {
    this.message = message;
  }

  @Override
  public int available() {
    return drained ? 0 : message.length();
  }

  @Override
  public int drainTo(OutputStream target) throws IOException {
    if (drained) {
      return 0;
    }
    drained = true;
    for (OutgoingBytes.Piece piece : message.pieces()) {
      target.write(piece.head(), 0, piece.headLength());
      drain(piece.bytes(), piece.offset(), piece.length(), target);
    }
    return message.length();
  }

  private static void drain(DirectBuffer bytes, int offset, int length, OutputStream target)
      throws IOException {
    byte[] array = bytes.byteArray();
    if (array != null) {
      bytes.boundsCheck(offset, length);
      target.write(array, bytes.wrapAdjustment() + offset, length);
      return;
    }
    byte[] chunk = CHUNK.get();
    for (int at = 0; at < length; at += chunk.length) {
      int part = Math.min(chunk.length, length - at);
      bytes.getBytes(offset + at, chunk, 0, part);
      target.write(chunk, 0, part);
    }
  }

  /** gRPC drains; a transport that reads instead, such as a compressing one, is none of ours. */
  @Override
  public int read() {
    throw new UnsupportedOperationException("the message must be drained");
  }

  @Override
  public int read(byte[] target, int offset, int length) {
    return read();
  }
}
