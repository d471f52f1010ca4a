package io.kvtier.rpc;

import io.kvtier.v1.Geometry;

/**
 * Bytes that TailorKV (arXiv 2505.19586) takes on the device, as published: first and last rows of
 * sparse layers, codes of dense ones, and buffers that all sparse layers share. Planner and worker
 * count by it, so that a plan within its bound is one that the worker can follow.
 *
 * @param kvHeads of a layer
 * @param headDim elements of a head's row
 */
public record TailorFootprint(int kvHeads, int headDim) {
  /** First and last tokens that are always attended. */
  public static final int ALWAYS_TOKENS = 64;

  /** Channels that tokens are chosen by. */
  public static final int CHANNELS = 8;

  /** Last tokens of a dense layer that are exact (KIVI, arXiv 2402.02750). */
  public static final int DENSE_EXACT_TOKENS = 128;

  /** Tokens of a key channel, and dimensions of a value, that share a zero and a step. */
  public static final int DENSE_GROUP = 64;

  /** Fewest tokens that a sparse layer chooses, where it has as many. */
  public static final int CHOSEN_TOKENS_MIN = 16;

  private static final int CHANNEL_BUFFERS = 2;
  private static final int ZERO_AND_STEP_BYTES = 2 * Short.BYTES;

  /** Of a checked geometry. */
  public static TailorFootprint of(Geometry geometry) {
    return new TailorFootprint(geometry.getKvHeads(), geometry.getHeadDim());
  }

  /** Keys and values of one token of one layer at 16 bits. */
  public long rowBytes() {
    return 2L * kvHeads * headDim * Short.BYTES;
  }

  /** A dense layer with codes of so many bits. */
  public long denseBytes(int bits, int tokens) {
    long exact = Math.min(DENSE_EXACT_TOKENS, tokens);
    long coded = tokens - exact;
    long codes = coded * 2 * kvHeads * headDim * bits / Byte.SIZE;
    long keyGroups = coded * kvHeads * headDim / DENSE_GROUP;
    long valueGroups = coded * kvHeads * Math.ceilDiv(headDim, DENSE_GROUP);
    return exact * rowBytes() + codes + (keyGroups + valueGroups) * ZERO_AND_STEP_BYTES;
  }

  /**
   * A sparse layer, the shared buffers apart.
   *
   * @param tokens among which dominant ones are chosen
   * @param since tokens after those, which stay
   */
  public long sparseBytes(int tokens, int since) {
    return (Math.min(tokens, ALWAYS_TOKENS) + (long) since) * rowBytes();
  }

  /** A session of sparse layers, at least. */
  public long leastBytes(int layers, int tokens) {
    return layers * sparseBytes(tokens, 0)
        + channelBytes(tokens)
        + chosenBytes(Math.min(CHOSEN_TOKENS_MIN, tokens));
  }

  /** The channels of all tokens, for the layer that attends and the next. */
  public long channelBytes(int tokens) {
    return (long) CHANNEL_BUFFERS * CHANNELS * kvHeads * Short.BYTES * tokens;
  }

  /** The chosen rows of the layer that attends. */
  public long chosenBytes(int chosen) {
    return chosen * rowBytes();
  }
}
