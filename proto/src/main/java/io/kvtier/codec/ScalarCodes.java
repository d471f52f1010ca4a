package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;

import java.util.Arrays;

/**
 * Codes of one byte each to and from a page's bit planes and nibbles (FORMAT.md, "Key planes" and
 * "Value codes"). Static; shapes: codes {@code [64][codeStride]}.
 */
final class ScalarCodes {
  private ScalarCodes() {}

  static void pack(HeadSide side, byte[] codes, byte[] head) {
    if (side.isKeys()) {
      for (int plane = 0; plane < side.bits(); plane++) {
        packPlane(side, codes, side.bits() - 1 - plane, head, side.planeAt(plane));
      }
      return;
    }
    for (int t = 0; t < TOKENS; t++) {
      int rowAt = side.codesAt() + t * side.codesRowLength();
      if (side.bits() == 4) {
        packNibbles(side.headDim(), codes, t * side.codeStride(), head, rowAt);
      } else {
        packBits(side, codes, t * side.codeStride(), head, rowAt);
      }
    }
  }

  static void unpack(HeadSide side, byte[] head, int tokens, byte[] codes) {
    if (side.isKeys()) {
      Arrays.fill(codes, (byte) 0);
      for (int plane = 0; plane < side.bits(); plane++) {
        unpackPlane(side, head, side.planeAt(plane), tokens, codes, side.bits() - 1 - plane);
      }
      return;
    }
    for (int t = 0; t < tokens; t++) {
      int rowAt = side.codesAt() + t * side.codesRowLength();
      if (side.bits() == 4) {
        unpackNibbles(side.headDim(), head, rowAt, codes, t * side.codeStride());
      } else {
        unpackBits(side, head, rowAt, codes, t * side.codeStride());
      }
    }
  }

  /** Byte t of row j has in bit i the bit of dimension 8j + i of token t. */
  private static void packPlane(HeadSide side, byte[] codes, int shift, byte[] head, int planeAt) {
    for (int j = 0; j < side.headDim() / Byte.SIZE; j++) {
      for (int t = 0; t < TOKENS; t++) {
        int from = t * side.codeStride() + j * Byte.SIZE;
        head[planeAt + j * TOKENS + t] = bitsOf(codes, from, shift);
      }
    }
  }

  private static void unpackPlane(
      HeadSide side, byte[] head, int planeAt, int tokens, byte[] codes, int shift) {
    for (int i = 0; i < side.headDim(); i++) {
      for (int t = 0; t < tokens; t++) {
        int bit = head[planeAt + i / Byte.SIZE * TOKENS + t] >> (i % Byte.SIZE) & 1;
        codes[t * side.codeStride() + i] |= (byte) (bit << shift);
      }
    }
  }

  /** Bit planes of one token, the highest bit first; bit i of byte j is dimension 8j + i. */
  private static void packBits(HeadSide side, byte[] codes, int codesAt, byte[] head, int rowAt) {
    int planeLength = side.headDim() / Byte.SIZE;
    for (int plane = 0; plane < side.bits(); plane++) {
      for (int j = 0; j < planeLength; j++) {
        head[rowAt + plane * planeLength + j] =
            bitsOf(codes, codesAt + j * Byte.SIZE, side.bits() - 1 - plane);
      }
    }
  }

  private static void unpackBits(HeadSide side, byte[] head, int rowAt, byte[] codes, int codesAt) {
    int planeLength = side.headDim() / Byte.SIZE;
    for (int i = 0; i < side.headDim(); i++) {
      int code = 0;
      for (int plane = 0; plane < side.bits(); plane++) {
        int bits = head[rowAt + plane * planeLength + i / Byte.SIZE];
        code = code << 1 | (bits >> (i % Byte.SIZE) & 1);
      }
      codes[codesAt + i] = (byte) code;
    }
  }

  /** One bit of eight codes. */
  private static byte bitsOf(byte[] codes, int from, int shift) {
    int bits = 0;
    for (int i = 0; i < Byte.SIZE; i++) {
      bits |= (codes[from + i] >> shift & 1) << i;
    }
    return (byte) bits;
  }

  /**
   * Chunks of 32 dimensions, 16 bytes: byte j has dimension j in its low nibble and 16 + j in its
   * high one; a last chunk of 16 dimensions likewise with 8.
   */
  static void packNibbles(int headDim, byte[] codes, int codesAt, byte[] head, int rowAt) {
    for (int from = 0; from < headDim; from += 32) {
      int half = Math.min(32, headDim - from) / 2;
      for (int j = 0; j < half; j++) {
        int low = codes[codesAt + from + j];
        int high = codes[codesAt + from + half + j];
        head[rowAt + from / 2 + j] = (byte) (low | high << 4);
      }
    }
  }

  static void unpackNibbles(int headDim, byte[] head, int rowAt, byte[] codes, int codesAt) {
    for (int from = 0; from < headDim; from += 32) {
      int half = Math.min(32, headDim - from) / 2;
      for (int j = 0; j < half; j++) {
        int pair = head[rowAt + from / 2 + j];
        codes[codesAt + from + j] = (byte) (pair & 15);
        codes[codesAt + from + half + j] = (byte) (pair >> 4 & 15);
      }
    }
  }
}
