package io.kvtier.wire;

import io.kvtier.KvtierException;
import org.agrona.DirectBuffer;

/**
 * A received message, read field by field. Valid only inside the callback, or until the next frame,
 * that it came with; on one thread.
 */
public abstract sealed class IncomingBytes permits BufferBytes, StreamBytes {
  private static final int VARINT = 0;
  private static final int FIXED64 = 1;
  private static final int LENGTH_DELIMITED = 2;
  private static final int FIXED32 = 5;
  private static final int VARINT_BYTES_MAX = 10;

  private final int length;
  private int left;

  IncomingBytes(int length) {
    this.length = length;
    this.left = length;
  }

  /** Where page bytes lie: valid as long as the message, and until the next are located. */
  record Located(DirectBuffer buffer, int offset) {}

  /** The next byte, of at least one left. */
  abstract int nextByte();

  /** Passes over bytes that are left. */
  abstract void skipBytes(int bytes);

  /** Finds the next bytes, all left, in one piece: where they are, or copied to the staging. */
  abstract Located takeBytes(int bytes, Staging staging);

  /** Bytes of the message on the wire. */
  public final int length() {
    return length;
  }

  /** Bytes not yet read. */
  final int left() {
    return left;
  }

  /**
   * Reads the next field's tag: field number times 8, plus the wire type; 0 at the end of the
   * message.
   */
  final int tag() {
    return left == 0 ? 0 : (int) varint();
  }

  static boolean isBytes(int tag, int field) {
    return tag == (field << 3 | LENGTH_DELIMITED);
  }

  static boolean isVarint(int tag, int field) {
    return tag == (field << 3 | VARINT);
  }

  static boolean isFixed32(int tag, int field) {
    return tag == (field << 3 | FIXED32);
  }

  final long varint() {
    long value = 0;
    for (int i = 0; i < VARINT_BYTES_MAX; i++) {
      int b = next();
      value |= (long) (b & 0x7F) << (7 * i);
      if ((b & 0x80) == 0) {
        return value;
      }
    }
    throw malformed("a varint of more than %d bytes".formatted(VARINT_BYTES_MAX));
  }

  /** The length of a bytes or message field; never more than what is left. */
  final int bytesLength() {
    long bytes = varint();
    if (bytes < 0 || bytes > left) {
      throw malformed("a field of %d bytes where %d are left".formatted(bytes, left));
    }
    return (int) bytes;
  }

  final int fixed32() {
    return next() | next() << 8 | next() << 16 | next() << 24;
  }

  final byte int8() {
    return (byte) next();
  }

  private int next() {
    requireLeft(1);
    left--;
    return nextByte();
  }

  private void requireLeft(int bytes) {
    if (bytes > left) {
      throw malformed("%d bytes where %d are left".formatted(bytes, left));
    }
  }

  /** Passes over a field of a tag that the reader does not know. */
  final void skip(int tag) {
    switch (tag & 7) {
      case VARINT -> varint();
      case FIXED64 -> skipRest(Long.BYTES);
      case LENGTH_DELIMITED -> skipRest(bytesLength());
      case FIXED32 -> skipRest(Integer.BYTES);
      default -> throw malformed("a field of wire type %d".formatted(tag & 7));
    }
  }

  /** Passes over bytes. */
  final void skipRest(int bytes) {
    requireLeft(bytes);
    skipBytes(bytes);
    left -= bytes;
  }

  /** Finds the next bytes in one piece. */
  final Located take(int bytes, Staging staging) {
    requireLeft(bytes);
    Located located = takeBytes(bytes, staging);
    left -= bytes;
    return located;
  }

  static KvtierException malformed(String what) {
    return KvtierException.invalid(
        "the message has %s; it must be as kvtier/v1/pages.proto says", what);
  }
}
