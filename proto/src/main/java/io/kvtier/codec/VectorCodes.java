package io.kvtier.codec;

import static io.kvtier.codec.PackKernels.TILE;
import static io.kvtier.page.PageLayout.TOKENS;

import java.util.Arrays;

/** {@link ScalarCodes} with the vector unit. Holds scratch; one thread. */
final class VectorCodes {
  private final HeadSide side;
  private final byte[] tile = new byte[TILE];
  private final byte[] other = new byte[TILE];

  /** The rows of value codes, with room for a whole word beyond the last. */
  private final byte[] valueRows;

  VectorCodes(HeadSide side) {
    this.side = side;
    this.valueRows = new byte[side.isKeys() ? 0 : TOKENS * side.codesRowLength() + Long.BYTES];
  }

  void pack(byte[] codes, byte[] head) {
    if (side.isKeys()) {
      packPlanes(codes, head);
    } else if (side.bits() == 4) {
      PackKernels.packNibbles(codes, side.codeStride(), side.headDim(), head, side.codesAt());
    } else {
      PackKernels.packRows(codes, side.codeStride(), side.headDim(), side.bits(), valueRows);
      System.arraycopy(valueRows, 0, head, side.codesAt(), TOKENS * side.codesRowLength());
    }
  }

  void unpack(byte[] head, int tokens, byte[] codes) {
    if (side.isKeys()) {
      unpackPlanes(head, tokens, codes);
    } else if (side.bits() == 4) {
      PackKernels.unpackNibbles(
          head, side.codesAt(), tokens, codes, side.codeStride(), side.headDim());
    } else {
      Arrays.fill(codes, (byte) 0);
      PackKernels.unpackRows(
          head, side.codesAt(), tokens, codes, side.codeStride(), side.headDim(), side.bits());
    }
  }

  private void packPlanes(byte[] codes, byte[] head) {
    for (int from = 0; from < side.headDim(); from += Long.SIZE) {
      int length = Math.min(TILE, (side.headDim() - from) / Byte.SIZE * TOKENS);
      for (int plane = 0; plane < side.bits(); plane++) {
        int bit = side.bits() - 1 - plane;
        PackKernels.gatherBits(codes, from, side.codeStride(), bit, tile);
        // [token][8 bytes] to [8 rows][token]: each round takes the lowest bit of the row apart.
        PackKernels.unzip(tile, other);
        PackKernels.unzip(other, tile);
        PackKernels.unzip(tile, other);
        System.arraycopy(other, 0, head, side.planeAt(plane) + from * Byte.SIZE, length);
      }
    }
  }

  private void unpackPlanes(byte[] head, int tokens, byte[] codes) {
    Arrays.fill(codes, (byte) 0);
    for (int from = 0; from < side.headDim(); from += Long.SIZE) {
      int length = Math.min(TILE, (side.headDim() - from) / Byte.SIZE * TOKENS);
      for (int plane = 0; plane < side.bits(); plane++) {
        System.arraycopy(head, side.planeAt(plane) + from * Byte.SIZE, other, 0, length);
        PackKernels.zip(other, tile);
        PackKernels.zip(tile, other);
        PackKernels.zip(other, tile);
        PackKernels.appendBits(tile, tokens, codes, from, side.codeStride());
      }
    }
  }
}
