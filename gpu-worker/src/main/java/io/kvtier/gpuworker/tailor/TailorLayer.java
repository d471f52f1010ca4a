package io.kvtier.gpuworker.tailor;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import io.kvtier.rpc.TailorFootprint;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A layer under TailorKV (arXiv 2505.19586), to compare with. As there, all keys and values lie in
 * the host memory of one process, so no page goes to the tier; the device bytes are told as the
 * method would take them ({@link TailorFootprint}), the buffers that serve all layers apart. What
 * is generated stays on the device, as published; where a session's device bytes are bounded, its
 * window of last tokens moves on instead, and what leaves it is chosen like the prompt's tokens.
 */
public final class TailorLayer implements DeviceLayer {
  /** First tokens of a prompt that are always attended. */
  static final int FIRST_TOKENS = 8;

  /** Last tokens that are always attended. */
  static final int LAST_TOKENS = TailorFootprint.ALWAYS_TOKENS - FIRST_TOKENS;

  private final boolean bounded;
  private final LayerShape shape;
  private final HostRows rows;
  private float[] largestKeys = new float[0];

  /** Read by others too, who ask for the layer's bytes. */
  private volatile List<HeadPolicy> policies = List.of();

  private @Nullable AffineRows affine;

  /** Likewise. */
  private volatile int promptTokens = -1;

  /**
   * An empty layer.
   *
   * @param bounded whether the window moves on
   */
  public TailorLayer(boolean bounded, LayerShape shape) {
    this(bounded, shape, new HostRows(shape));
  }

  private TailorLayer(boolean bounded, LayerShape shape, HostRows rows) {
    this.bounded = bounded;
    this.shape = shape;
    this.rows = rows;
  }

  LayerShape shape() {
    return shape;
  }

  HostRows rows() {
    return rows;
  }

  /** First tokens among which dominant ones are chosen, those that are always attended apart. */
  int pastTokens() {
    return bounded ? rows.tokens() : promptTokens;
  }

  /** The largest magnitude of a channel of the prompt's keys. */
  float largestKey(int kvHead, int channel) {
    return largestKeys[kvHead * shape.headDim() + channel];
  }

  /** All rows as a dense layer keeps them. */
  HostRows quantized(int bits) {
    AffineRows current = affine;
    if (current == null) {
      current = new AffineRows(shape, bits);
      affine = current;
    }
    return current.follow(rows);
  }

  @Override
  public boolean placesHeads() {
    return false;
  }

  @Override
  public int tokens() {
    return rows.tokens();
  }

  @Override
  public int pages() {
    return 0;
  }

  @Override
  public void append(float[] keys, float[] values, int tokens, PageSink sink) {
    rows.append(keys, values, tokens);
  }

  @Override
  public List<PageKey> pageKeys() {
    return List.of();
  }

  @Override
  public Residence residence(int kvHead) {
    return Residence.TWO_PLANES;
  }

  @Override
  public List<DeviceSlot> sketches(int kvHead) {
    return List.of();
  }

  @Override
  public List<DeviceSlot> codes(int kvHead) {
    return List.of();
  }

  @Override
  public void hold(
      int kvHead, Residence residence, List<DeviceSlot> sketches, List<DeviceSlot> codes) {
    throw new UnsupportedOperationException("layers of this method are placed as a whole");
  }

  @Override
  public LayerPass newPass(List<HeadPolicy> policies) {
    if (promptTokens < 0) {
      promptTokens = rows.tokens();
      largestKeys = new float[shape.rowLength()];
      for (int i = 0; i < promptTokens * shape.rowLength(); i++) {
        int channel = i % shape.rowLength();
        largestKeys[channel] = Math.max(largestKeys[channel], Math.abs(rows.keys()[i]));
      }
    }
    return new TailorPass(this, policies);
  }

  /** Exact shares, over all tokens: P = E of 5 % of them. */
  @Override
  public void profile(int kvHead, float[] query, int at, int position, MassHistogram[] masses) {
    int headDim = shape.headDim();
    float[] scores = new float[position + 1];
    for (int g = 0; g < shape.group(); g++) {
      int queryAt = at + (kvHead * shape.group() + g) * headDim;
      float max = Float.NEGATIVE_INFINITY;
      for (int t = 0; t <= position; t++) {
        int keyAt = rows.at(t, kvHead, headDim);
        float dot = 0;
        for (int d = 0; d < headDim; d++) {
          dot += query[queryAt + d] * rows.keys()[keyAt + d];
        }
        scores[t] = dot / (float) Math.sqrt(headDim);
        max = Math.max(max, scores[t]);
      }
      double total = 0;
      for (int t = 0; t <= position; t++) {
        scores[t] = (float) Math.exp(scores[t] - max);
        total += scores[t];
      }
      masses[g].clear();
      for (int t = 0; t <= position; t++) {
        masses[g].add((float) (scores[t] / total));
      }
    }
  }

  @Override
  public void readRow(
      int kvHead, int position, @Nullable DeviceSlot codes, float[] keys, float[] values, int at) {
    int from = rows.at(position, kvHead, shape.headDim());
    System.arraycopy(rows.keys(), from, keys, at, shape.headDim());
    System.arraycopy(rows.values(), from, values, at, shape.headDim());
  }

  @Override
  public boolean isExact(int position) {
    return true;
  }

  @Override
  public DeviceLayer fork() {
    TailorLayer fork = new TailorLayer(bounded, shape, rows.copy(shape));
    fork.promptTokens = promptTokens;
    fork.policies = policies;
    fork.largestKeys = Arrays.copyOf(largestKeys, largestKeys.length);
    return fork;
  }

  /** Tells the policies that the layer is under from now on. */
  public void place(List<HeadPolicy> policies) {
    this.policies = policies;
  }

  /** Device bytes that the layer would take under policies, with so many tokens. */
  public long bytes(List<HeadPolicy> policies, int tokens) {
    TailorFootprint footprint = new TailorFootprint(shape.kvHeads(), shape.headDim());
    HeadPolicy ofAll = policies.getFirst();
    if (ofAll.dense()) {
      return footprint.denseBytes(ofAll.bits(), tokens);
    }
    int past = bounded || promptTokens < 0 ? tokens : promptTokens;
    return footprint.sparseBytes(past, tokens - past);
  }

  @Override
  public long residentBytes() {
    return policies.isEmpty() ? 0 : bytes(policies, rows.tokens());
  }

  @Override
  public List<PageKey> release() {
    return List.of();
  }
}
