package io.kvtier.codec;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;

/**
 * Rows of bf16: the raw16 codec, and the exact rows of 16-bit engines. bf16 is the upper half of a
 * binary32.
 */
public final class RawRows {
  /**
   * Values beyond this magnitude are refused by every codec: fp16 scales and means could not hold
   * them.
   */
  public static final float MAGNITUDE_MAX = 4096f;

  private RawRows() {}

  /** The bf16 nearest to a finite value, ties to even. */
  public static short toBf16(float value) {
    int bits = Float.floatToRawIntBits(value);
    return (short) ((bits + 0x7FFF + (bits >>> 16 & 1)) >>> 16);
  }

  public static float ofBf16(short bits) {
    return Float.intBitsToFloat(bits << 16);
  }

  /** Writes {@code length} elements of {@code row} as bf16. */
  public static void put(MutableDirectBuffer buffer, int at, float[] row, int rowAt, int length) {
    for (int i = 0; i < length; i++) {
      buffer.putShort(at + i * Short.BYTES, toBf16(row[rowAt + i]), LITTLE_ENDIAN);
    }
  }

  /** Reads {@code length} bf16 elements into {@code row}. */
  public static void get(DirectBuffer buffer, int at, float[] row, int rowAt, int length) {
    for (int i = 0; i < length; i++) {
      row[rowAt + i] = ofBf16(buffer.getShort(at + i * Short.BYTES, LITTLE_ENDIAN));
    }
  }
}
