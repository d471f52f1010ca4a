package io.kvtier.codec;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/** fp16 (IEEE 754 binary16), little-endian, in byte arrays; rounded to nearest, ties to even. */
final class Halves {
  private static final VarHandle SHORTS =
      MethodHandles.byteArrayViewVarHandle(short[].class, ByteOrder.LITTLE_ENDIAN);

  private Halves() {}

  static float get(byte[] bytes, int at) {
    return Float.float16ToFloat((short) SHORTS.get(bytes, at));
  }

  /** Reads {@code length} fp16 from byte {@code at} on. */
  static void get(byte[] bytes, int at, float[] values, int length) {
    for (int i = 0; i < length; i++) {
      values[i] = get(bytes, at + i * Short.BYTES);
    }
  }

  static void put(byte[] bytes, int at, float value) {
    SHORTS.set(bytes, at, Float.floatToFloat16(value));
  }

  /** Writes {@code length} fp16 from byte {@code at} on. */
  static void put(byte[] bytes, int at, float[] values, int length) {
    for (int i = 0; i < length; i++) {
      put(bytes, at + i * Short.BYTES, values[i]);
    }
  }
}
