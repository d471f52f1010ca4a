package io.kvtier.wire;

import io.grpc.HasByteBuffer;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import org.agrona.MutableDirectBuffer;

/**
 * A received message in the buffers of gRPC's transport, its page bytes copied straight from there
 * to a {@link Staging}. Valid only inside the callback that was given it, on its thread: gRPC gives
 * the buffers back after it, whether they were read or not.
 */
public final class StreamBytes extends IncomingBytes {
  private static final int CHUNK_BYTES = 8 << 10;

  private final InputStream stream;

  /** A message that is all of the stream's contents. */
  public StreamBytes(InputStream stream) {
    super(available(stream));
    this.stream = stream;
  }

  private static int available(InputStream stream) {
    try {
      return stream.available();
    } catch (IOException e) {
      throw unreadable(e);
    }
  }

  private static UncheckedIOException unreadable(IOException e) {
    return new UncheckedIOException("a received message cannot be read", e);
  }

  @Override
  int nextByte() {
    try {
      int b = stream.read();
      if (b < 0) {
        throw malformed("an end inside a field");
      }
      return b;
    } catch (IOException e) {
      throw unreadable(e);
    }
  }

  @Override
  void skipBytes(int bytes) {
    try {
      stream.skipNBytes(bytes);
    } catch (IOException e) {
      throw unreadable(e);
    }
  }

  /** Slice by slice from the transport's buffers where it shows them. */
  @Override
  Located takeBytes(int bytes, Staging staging) {
    MutableDirectBuffer target = staging.ensure(bytes, 0);
    try {
      if (stream instanceof HasByteBuffer buffers && buffers.byteBufferSupported()) {
        copySlices(buffers, target, bytes);
      } else {
        copyChunks(target, bytes);
      }
    } catch (IOException e) {
      throw unreadable(e);
    }
    return new Located(target, 0);
  }

  private void copySlices(HasByteBuffer buffers, MutableDirectBuffer target, int bytes)
      throws IOException {
    for (int at = 0; at < bytes; ) {
      ByteBuffer slice = buffers.getByteBuffer();
      int part = slice == null ? 0 : Math.min(slice.remaining(), bytes - at);
      if (part == 0) {
        throw malformed("fewer bytes than announced");
      }
      target.putBytes(at, slice, slice.position(), part);
      stream.skipNBytes(part);
      at += part;
    }
  }

  private void copyChunks(MutableDirectBuffer target, int bytes) throws IOException {
    byte[] chunk = new byte[Math.min(bytes, CHUNK_BYTES)];
    for (int at = 0; at < bytes; ) {
      int part = stream.read(chunk, 0, Math.min(chunk.length, bytes - at));
      if (part <= 0) {
        throw malformed("fewer bytes than announced");
      }
      target.putBytes(at, chunk, 0, part);
      at += part;
    }
  }
}
