package io.kvtier.wire;

import org.agrona.DirectBuffer;

/** A received message that lies in one piece of memory; its page bytes are used where they are. */
public final class BufferBytes extends IncomingBytes {
  private final DirectBuffer buffer;
  private int at;

  /** A message that is {@code length} bytes of the buffer. */
  public BufferBytes(DirectBuffer buffer, int offset, int length) {
    super(length);
    buffer.boundsCheck(offset, length);
    this.buffer = buffer;
    this.at = offset;
  }

  @Override
  int nextByte() {
    return buffer.getByte(at++) & 0xFF;
  }

  @Override
  void skipBytes(int bytes) {
    at += bytes;
  }

  @Override
  Located takeBytes(int bytes, Staging staging) {
    Located located = new Located(buffer, at);
    at += bytes;
    return located;
  }
}
