package io.kvtier.codec;

import static io.kvtier.codec.Lanes.BYTES;
import static io.kvtier.codec.Lanes.BYTES_HALF;
import static io.kvtier.codec.Lanes.SHORTS;
import static io.kvtier.page.PageLayout.TOKENS;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;

/**
 * Bits and nibbles of codes of one byte each. A tile is one bit of 64 dimensions of 64 tokens, 512
 * bytes; codes are {@code [64][codeStride]}.
 */
final class PackKernels {
  static final int TILE = TOKENS * Long.BYTES;

  private static final VectorSpecies<Byte> SIXTEEN = ByteVector.SPECIES_128;

  private static final VarHandle LONGS =
      MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

  private static final long NIBBLES = 0x0F0F_0F0F_0F0F_0F0FL;

  private PackKernels() {}

  /** Takes one bit of 64 codes of each token, from dimension {@code first} on, into a tile. */
  static void gatherBits(byte[] codes, int first, int codeStride, int bit, byte[] tile) {
    byte mask = (byte) (1 << bit);
    for (int t = 0; t < TOKENS; t++) {
      long bits = 0;
      for (int k = 0; k < Long.SIZE; k += BYTES.length()) {
        ByteVector code = ByteVector.fromArray(BYTES, codes, first + t * codeStride + k);
        bits |= code.and(mask).compare(VectorOperators.NE, 0).toLong() << k;
      }
      LONGS.set(tile, t * Long.BYTES, bits);
    }
  }

  /** Appends a lowest bit to 64 codes of each token, from a tile. */
  static void appendBits(byte[] tile, int tokens, byte[] codes, int first, int codeStride) {
    for (int t = 0; t < tokens; t++) {
      long bits = (long) LONGS.get(tile, t * Long.BYTES);
      for (int k = 0; k < Long.SIZE; k += BYTES.length()) {
        int to = first + t * codeStride + k;
        ByteVector code = ByteVector.fromArray(BYTES, codes, to);
        VectorMask<Byte> isSet = VectorMask.fromLong(BYTES, bits >>> k);
        code.add(code).add((byte) 1, isSet).intoArray(codes, to);
      }
    }
  }

  /**
   * Value codes of 1 to 3 bits to rows of bit planes. Whole words are written in rising order, so
   * that what a word has beyond its plane is overwritten by the next.
   *
   * @param rows all 64, and a word more
   */
  static void packRows(byte[] codes, int codeStride, int headDim, int bits, byte[] rows) {
    int planes = TOKENS * bits;
    int planeLength = headDim / Byte.SIZE;
    for (int plane = 0; plane < planes; plane++) {
      byte mask = (byte) (1 << (bits - 1 - plane % bits));
      int from = plane / bits * codeStride;
      for (int j = 0; j < planeLength; j += Long.BYTES) {
        long word = 0;
        for (int k = 0; k < Long.SIZE; k += BYTES.length()) {
          ByteVector code = ByteVector.fromArray(BYTES, codes, from + j * Byte.SIZE + k);
          word |= code.and(mask).compare(VectorOperators.NE, 0).toLong() << k;
        }
        LONGS.set(rows, plane * planeLength + j, word);
      }
    }
  }

  /** Appends bits to codes of zero: undoes {@link #packRows}. */
  static void unpackRows(
      byte[] head, int at, int tokens, byte[] codes, int codeStride, int headDim, int bits) {
    int planes = tokens * bits;
    int planeLength = headDim / Byte.SIZE;
    for (int plane = 0; plane < planes; plane++) {
      int to = plane / bits * codeStride;
      for (int j = 0; j < planeLength; j += Long.BYTES) {
        long word = (long) LONGS.get(head, at + plane * planeLength + j);
        for (int k = 0; k < Long.SIZE; k += BYTES.length()) {
          ByteVector code = ByteVector.fromArray(BYTES, codes, to + j * Byte.SIZE + k);
          VectorMask<Byte> isSet = VectorMask.fromLong(BYTES, word >>> k);
          code.add(code).add((byte) 1, isSet).intoArray(codes, to + j * Byte.SIZE + k);
        }
      }
    }
  }

  /** Bytes of even index to the first half of a tile, of odd index to the second. */
  static void unzip(byte[] from, byte[] to) {
    for (int i = 0; i < TILE; i += BYTES.length()) {
      ShortVector pairs = ByteVector.fromArray(BYTES, from, i).reinterpretAsShorts();
      ((ByteVector) pairs.convertShape(VectorOperators.S2B, BYTES_HALF, 0)).intoArray(to, i / 2);
      ((ByteVector)
              pairs
                  .lanewise(VectorOperators.LSHR, Byte.SIZE)
                  .convertShape(VectorOperators.S2B, BYTES_HALF, 0))
          .intoArray(to, (TILE + i) / 2);
    }
  }

  /** Undoes {@link #unzip}. */
  static void zip(byte[] from, byte[] to) {
    for (int i = 0; i < TILE; i += BYTES.length()) {
      ShortVector even =
          (ShortVector)
              ByteVector.fromArray(BYTES_HALF, from, i / 2)
                  .convertShape(VectorOperators.ZERO_EXTEND_B2S, SHORTS, 0);
      ShortVector odd =
          (ShortVector)
              ByteVector.fromArray(BYTES_HALF, from, (TILE + i) / 2)
                  .convertShape(VectorOperators.ZERO_EXTEND_B2S, SHORTS, 0);
      even.or(odd.lanewise(VectorOperators.LSHL, Byte.SIZE)).reinterpretAsBytes().intoArray(to, i);
    }
  }

  /** Value codes of 4 bits to nibbles, all 64 rows. */
  static void packNibbles(byte[] codes, int codeStride, int headDim, byte[] head, int at) {
    for (int t = 0; t < TOKENS; t++) {
      int from = t * codeStride;
      int to = at + t * headDim / 2;
      int end = from + headDim;
      for (; from + 32 <= end; from += 32, to += 16) {
        ByteVector low = ByteVector.fromArray(SIXTEEN, codes, from);
        ByteVector high = ByteVector.fromArray(SIXTEEN, codes, from + 16);
        // Codes are below 16: no bit of a shifted short crosses into the next byte.
        low.or(high.reinterpretAsShorts().lanewise(VectorOperators.LSHL, 4).reinterpretAsBytes())
            .intoArray(head, to);
      }
      if (from < end) {
        long low = (long) LONGS.get(codes, from);
        long high = (long) LONGS.get(codes, from + Long.BYTES);
        LONGS.set(head, to, low | high << 4);
      }
    }
  }

  /** Undoes {@link #packNibbles}. */
  static void unpackNibbles(
      byte[] head, int at, int tokens, byte[] codes, int codeStride, int headDim) {
    for (int t = 0; t < tokens; t++) {
      int from = at + t * headDim / 2;
      int to = t * codeStride;
      int end = to + headDim;
      for (; to + 32 <= end; to += 32, from += 16) {
        ByteVector pairs = ByteVector.fromArray(SIXTEEN, head, from);
        pairs.and((byte) 15).intoArray(codes, to);
        pairs
            .reinterpretAsShorts()
            .lanewise(VectorOperators.LSHR, 4)
            .reinterpretAsBytes()
            .and((byte) 15)
            .intoArray(codes, to + 16);
      }
      if (to < end) {
        long pairs = (long) LONGS.get(head, from);
        LONGS.set(codes, to, pairs & NIBBLES);
        LONGS.set(codes, to + Long.BYTES, pairs >>> 4 & NIBBLES);
      }
    }
  }
}
