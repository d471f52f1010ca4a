package io.kvtier.gpuworker.tailor;

import io.kvtier.attention.Partial;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.rpc.TailorFootprint;
import java.util.Arrays;
import java.util.List;

/**
 * One query by TailorKV (arXiv 2505.19586, section 4): a layer that is dense attends to all of its
 * quantized rows; another one scores every token of the prompt by the eight channels of largest
 * |query| x largest |key|, the group's queries averaged, and attends exactly to the tokens of
 * highest score, the first and the last ones of the prompt, and all that came after. What is not
 * chosen is left out.
 */
final class TailorPass implements LayerPass {
  private static final int CHANNELS = TailorFootprint.CHANNELS;

  private final TailorLayer layer;
  private final LayerShape shape;
  private final List<HeadPolicy> policies;
  private final Partial[] partials;
  private final int[][] chosen;
  private float[] newKeys = new float[0];
  private float[] newValues = new float[0];
  private int newTokens;
  private float[] query = new float[0];
  private int queryAt;
  private long bytesMoved;

  TailorPass(TailorLayer layer, List<HeadPolicy> policies) {
    this.layer = layer;
    this.shape = layer.shape();
    this.policies = policies;
    this.partials = new Partial[shape.qHeads()];
    Arrays.setAll(partials, q -> new Partial(shape.headDim()));
    this.chosen = new int[shape.kvHeads()][0];
  }

  @Override
  public void choose(float[] query, int queryAt, float[] newKeys, float[] newValues, int count) {
    this.query = query;
    this.queryAt = queryAt;
    this.newKeys = newKeys;
    this.newValues = newValues;
    this.newTokens = count;
    bytesMoved = 0;
    for (int head = 0; head < chosen.length; head++) {
      chosen[head] = policies.get(head).dense() ? new int[0] : dominant(head);
    }
  }

  private int[] dominant(int kvHead) {
    int headDim = shape.headDim();
    int from = Math.min(TailorLayer.FIRST_TOKENS, layer.pastTokens());
    int to = Math.max(from, layer.pastTokens() - TailorLayer.LAST_TOKENS);
    float[] mean = new float[headDim];
    for (int g = 0; g < shape.group(); g++) {
      int at = queryAt + (kvHead * shape.group() + g) * headDim;
      for (int i = 0; i < headDim; i++) {
        mean[i] += query[at + i] / shape.group();
      }
    }
    int[] channels = criticalChannels(mean, kvHead);
    float[] scores = new float[to - from];
    float[] keys = layer.rows().keys();
    for (int t = from; t < to; t++) {
      int at = layer.rows().at(t, kvHead, headDim);
      for (int channel : channels) {
        scores[t - from] += mean[channel] * keys[at + channel];
      }
    }
    int k = Math.min(policies.get(kvHead).tokensMax(), to - from);
    bytesMoved += ((long) channels.length * layer.rows().tokens() + 2L * k * headDim) * Short.BYTES;
    return largest(scores, k, from);
  }

  private int[] criticalChannels(float[] mean, int kvHead) {
    float[] weight = new float[shape.headDim()];
    for (int i = 0; i < weight.length; i++) {
      weight[i] = Math.abs(mean[i]) * layer.largestKey(kvHead, i);
    }
    return largest(weight, Math.min(CHANNELS, weight.length), 0);
  }

  /** Indices, plus {@code base}, of the {@code k} largest, rising. */
  private static int[] largest(float[] x, int k, int base) {
    if (k == 0) {
      return new int[0];
    }
    float[] sorted = x.clone();
    Arrays.sort(sorted);
    float threshold = sorted[sorted.length - k];
    int above = 0;
    for (float value : x) {
      above += value > threshold ? 1 : 0;
    }
    int atThreshold = k - above;
    int[] indices = new int[k];
    int n = 0;
    for (int i = 0; i < x.length && n < k; i++) {
      if (x[i] > threshold || (x[i] == threshold && atThreshold-- > 0)) {
        indices[n++] = base + i;
      }
    }
    return indices;
  }

  @Override
  public void finish(float[] output, int outputAt, float[] lse, int lseAt) {
    for (int head = 0; head < chosen.length; head++) {
      boolean dense = policies.get(head).dense();
      HostRows rows = dense ? layer.quantized(policies.get(head).bits()) : layer.rows();
      int[] kept = dense ? all(rows.tokens()) : kept(head);
      for (int g = 0; g < shape.group(); g++) {
        int q = head * shape.group() + g;
        partials[q].clear();
        attend(q, head, rows, kept);
        System.arraycopy(
            partials[q].output(), 0, output, outputAt + q * shape.headDim(), shape.headDim());
        lse[lseAt + q] = partials[q].lse();
      }
    }
  }

  private static int[] all(int tokens) {
    int[] every = new int[tokens];
    Arrays.setAll(every, i -> i);
    return every;
  }

  /** First, chosen and last tokens of the past, and all since. */
  private int[] kept(int kvHead) {
    int tokens = layer.rows().tokens();
    int first = Math.min(TailorLayer.FIRST_TOKENS, layer.pastTokens());
    int last = Math.max(first, layer.pastTokens() - TailorLayer.LAST_TOKENS);
    int[] dominant = chosen[kvHead];
    int[] kept = new int[first + dominant.length + tokens - last];
    for (int i = 0; i < first; i++) {
      kept[i] = i;
    }
    System.arraycopy(dominant, 0, kept, first, dominant.length);
    for (int t = last; t < tokens; t++) {
      kept[first + dominant.length + t - last] = t;
    }
    return kept;
  }

  private void attend(int q, int kvHead, HostRows rows, int[] kept) {
    int headDim = shape.headDim();
    int n = kept.length + newTokens;
    float[] scores = new float[n];
    float max = Float.NEGATIVE_INFINITY;
    for (int i = 0; i < n; i++) {
      boolean old = i < kept.length;
      float[] keys = old ? rows.keys() : newKeys;
      int at = old ? rows.at(kept[i], kvHead, headDim) : newAt(i - kept.length, kvHead);
      float dot = 0;
      for (int d = 0; d < headDim; d++) {
        dot += query[queryAt + q * headDim + d] * keys[at + d];
      }
      scores[i] = dot / (float) Math.sqrt(headDim);
      max = Math.max(max, scores[i]);
    }
    float[] sum = new float[headDim];
    double total = 0;
    for (int i = 0; i < n; i++) {
      boolean old = i < kept.length;
      float[] values = old ? rows.values() : newValues;
      int at = old ? rows.at(kept[i], kvHead, headDim) : newAt(i - kept.length, kvHead);
      float weight = (float) Math.exp(scores[i] - max);
      total += weight;
      for (int d = 0; d < headDim; d++) {
        sum[d] += weight * values[at + d];
      }
    }
    if (n > 0) {
      partials[q].merge(sum, 0, (float) (1 / total), max + (float) Math.log(total));
    }
  }

  private int newAt(int token, int kvHead) {
    return token * shape.rowLength() + kvHead * shape.headDim();
  }

  @Override
  public long bytesMoved() {
    return bytesMoved;
  }

  @Override
  public int rowSections(int kvHead) {
    return 0;
  }

  @Override
  public boolean streams(int kvHead) {
    return false;
  }

  @Override
  public int chosenCount(int kvHead) {
    return chosen[kvHead].length;
  }

  @Override
  public int chosenPosition(int kvHead, int index) {
    return chosen[kvHead][index];
  }

  /** The method ranks tokens and knows no masses. */
  @Override
  public float chosenMass(int kvHead, int index) {
    return 0;
  }

  @Override
  public int chosenTotal() {
    int total = 0;
    for (int[] ofHead : chosen) {
      total += ofHead.length;
    }
    return total;
  }

  @Override
  public void giveRow(int kvHead, int index, DeviceSlot rows, int offset) {
    throw new IllegalStateException("this method needs no rows");
  }

  @Override
  public void forgetRows() {}

  @Override
  public void attendRows() {}

  @Override
  public int attendedCount(int kvHead) {
    return 0;
  }

  @Override
  public void attendPages(int[] pages, int[] kvHeads, DeviceSlot[] codes, int count) {
    throw new IllegalStateException("this method needs no pages");
  }

  @Override
  public void skipPages(int kvHead, int pages) {
    throw new IllegalStateException("this method has no pages");
  }

  @Override
  public void attendResident() {}

  @Override
  public void release() {}
}
