package io.kvtier.rpc;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;

/** What a model's geometry may be (types.proto). */
public final class GeometryLimits {
  public static final int TOKENS_MAX = 1 << 20;

  private static final int LAYERS_MAX = 512;
  private static final int Q_HEADS_MAX = 512;
  private static final int KV_HEADS_MAX = 128;
  private static final int FINER_BITS = 8;

  private GeometryLimits() {}

  /**
   * Checks every field.
   *
   * @throws KvtierException INVALID with name, value and bound
   */
  public static void check(Geometry geometry) {
    requireInRange("layers", Integer.toUnsignedLong(geometry.getLayers()), 1, LAYERS_MAX);
    requireInRange("q_heads", Integer.toUnsignedLong(geometry.getQHeads()), 1, Q_HEADS_MAX);
    requireInRange("kv_heads", Integer.toUnsignedLong(geometry.getKvHeads()), 1, KV_HEADS_MAX);
    if (geometry.getQHeads() % geometry.getKvHeads() != 0) {
      throw KvtierException.invalid(
          "q_heads is %d; it must be a multiple of kv_heads, %d",
          geometry.getQHeads(), geometry.getKvHeads());
    }
    PageLayout.requireHeadDim(Integer.toUnsignedLong(geometry.getHeadDim()));
    if (geometry.getKvDtype() != Dtype.DTYPE_FP32 && geometry.getKvDtype() != Dtype.DTYPE_BF16) {
      throw KvtierException.invalid(
          "kv_dtype is %d; it must be DTYPE_FP32 (1) or DTYPE_BF16 (2)",
          geometry.getKvDtypeValue());
    }
    Fingerprint.of(geometry.getModelFingerprint());
    int bits = geometry.getCodeBits();
    if (bits != 0 && bits != 4 && bits != FINER_BITS) {
      throw KvtierException.invalid(
          "code_bits is %s; it must be 4, %d, or 0 for 4",
          Integer.toUnsignedString(bits), FINER_BITS);
    }
  }

  /** How the pages of a checked geometry are coded, keys and values alike. */
  public static Codec codec(Geometry geometry) {
    return geometry.getCodeBits() == FINER_BITS ? Codec.ROT8 : Codec.ROT4;
  }

  /** How the pages of a checked geometry are laid out. */
  public static PageLayout layout(Geometry geometry) {
    Codec codec = codec(geometry);
    return new PageLayout(codec, codec, geometry.getKvHeads(), geometry.getHeadDim());
  }

  /** Counts the (layer, KV head) pairs of a checked geometry: the entries of its plans. */
  public static int heads(Geometry geometry) {
    return geometry.getLayers() * geometry.getKvHeads();
  }
}
