package io.kvtier.wire;

/** Protocol Buffers fields, written into an array that is long enough. Zero is not written. */
final class Fields {
  private static final int VARINT = 0;
  private static final int LENGTH_DELIMITED = 2;

  private final byte[] array;
  private int length;

  Fields(int bytesMax) {
    array = new byte[bytesMax];
  }

  byte[] array() {
    return array;
  }

  int length() {
    return length;
  }

  void uint32(int field, int value) {
    if (value != 0) {
      varint(field << 3 | VARINT);
      varint(value);
    }
  }

  /** The head of a bytes or message field whose contents follow. */
  void bytesHead(int field, int bytes) {
    varint(field << 3 | LENGTH_DELIMITED);
    varint(bytes);
  }

  void packedUint32(int field, int[] values) {
    int bytes = 0;
    for (int value : values) {
      bytes += varintBytes(value);
    }
    bytesHead(field, bytes);
    for (int value : values) {
      varint(value);
    }
  }

  void packedFixed32(int field, int[] values) {
    bytesHead(field, values.length * Integer.BYTES);
    for (int value : values) {
      for (int shift = 0; shift < Integer.SIZE; shift += Byte.SIZE) {
        array[length++] = (byte) (value >>> shift);
      }
    }
  }

  void append(Fields other) {
    System.arraycopy(other.array, 0, array, length, other.length);
    length += other.length;
  }

  void raw(byte[] bytes) {
    System.arraycopy(bytes, 0, array, length, bytes.length);
    length += bytes.length;
  }

  private void varint(int value) {
    int rest = value;
    while ((rest & ~0x7F) != 0) {
      array[length++] = (byte) (rest | 0x80);
      rest >>>= 7;
    }
    array[length++] = (byte) rest;
  }

  private static int varintBytes(int value) {
    return Math.max(1, (Integer.SIZE - Integer.numberOfLeadingZeros(value) + 6) / 7);
  }
}
