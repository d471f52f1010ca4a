package io.kvtier.codec;

/**
 * Codes the keys, or the values, of one KV head of a page. The scalar versions are the
 * specification; the vector versions give the same bytes and the same rows, to the bit. Holds
 * scratch: one instance serves one thread at a time. Allocates nothing after construction.
 */
interface HeadCodec {
  /** Bytes that must be there beyond a head's last, for reads of whole words. */
  int SLACK = 64;

  /**
   * Writes all sections of this side.
   *
   * @param rows {@code [tokens][stride]}, of which {@code headDim} elements from {@code at} on are
   *     this head's; finite, at most {@link RawRows#MAGNITUDE_MAX} in magnitude
   * @param tokens 1..64; lanes and rows of tokens that are not there become zero
   * @param head the head's bytes from its first section on, and {@link #SLACK} more
   */
  void encode(float[] rows, int at, int stride, int tokens, byte[] head);

  /** Reads rows back; parameters as for {@link #encode}, whatever the bytes. */
  void decode(byte[] head, int tokens, float[] rows, int at, int stride);

  /** The codec for one side of a layout's heads, with vector kernels or without. */
  static HeadCodec of(HeadSide side, boolean vectors) {
    return switch (side.codec().family()) {
      case RAW -> vectors ? new VectorRawCodec(side) : new ScalarRawCodec(side);
      case ROT -> vectors ? new VectorRotCodec(side) : new ScalarRotCodec(side);
      case AFFINE -> vectors ? new VectorAffineCodec(side) : new ScalarAffineCodec(side);
    };
  }
}
