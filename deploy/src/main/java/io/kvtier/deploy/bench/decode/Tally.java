package io.kvtier.deploy.bench.decode;

import io.kvtier.v1.DecodeResponse;
import java.util.Arrays;

/** What one configuration's decoding gives, over all its contexts. One thread. */
final class Tally {
  private float[] errors = new float[1024];
  private int errorCount;
  private double divergence;
  private int divergences;
  private int agreed;
  private int cases;
  private int right;
  private int rightFull;
  private int rows;
  private int rowsWithin;
  private final double[] captured = new double[2];
  private final double[] capturable = new double[2];
  private int captures;
  private long deviceBytes;
  private double deviceShare;
  private long bytesFetched;
  private long unhiddenNs;
  private int steps;

  /** Counts one layer's step. */
  void addResponse(DecodeResponse response, int layer, double fullBytes) {
    deviceBytes = Math.max(deviceBytes, response.getBytes().getDevice());
    deviceShare = Math.max(deviceShare, response.getBytes().getDevice() / fullBytes);
    bytesFetched += response.getStats().getBytesFetched();
    unhiddenNs += response.getStats().getUnhiddenNs();
    steps += layer == 0 ? 1 : 0;
  }

  /** Counts the relative error of every q head's output. */
  void addErrors(float[] actual, float[] expected, int headDim) {
    for (int at = 0; at < expected.length; at += headDim) {
      double difference = 0;
      double norm = 0;
      for (int i = at; i < at + headDim; i++) {
        difference += Math.pow(actual[i] - expected[i], 2);
        norm += Math.pow(expected[i], 2);
      }
      if (errorCount == errors.length) {
        errors = Arrays.copyOf(errors, 2 * errorCount);
      }
      errors[errorCount++] = (float) Math.sqrt(difference / norm);
    }
  }

  /** Counts KL(full ‖ kvtier) of one token's logits, from {@code at} on in {@code full}. */
  void addLogits(float[] full, int at, float[] tiered) {
    double lseFull = logSumExp(full, at, tiered.length);
    double lseTiered = logSumExp(tiered, 0, tiered.length);
    double sum = 0;
    int best = 0;
    int bestFull = 0;
    for (int i = 0; i < tiered.length; i++) {
      double logP = full[at + i] - lseFull;
      sum += Math.exp(logP) * (logP - (tiered[i] - lseTiered));
      best = tiered[i] > tiered[best] ? i : best;
      bestFull = full[at + i] > full[at + bestFull] ? i : bestFull;
    }
    divergence += sum;
    divergences++;
    agreed += best == bestFull ? 1 : 0;
  }

  private static double logSumExp(float[] x, int at, int length) {
    double max = Double.NEGATIVE_INFINITY;
    for (int i = 0; i < length; i++) {
      max = Math.max(max, x[at + i]);
    }
    double sum = 0;
    for (int i = 0; i < length; i++) {
      sum += Math.exp(x[at + i] - max);
    }
    return max + Math.log(sum);
  }

  void addCase(int[] expected, int[] full, int[] tiered) {
    cases++;
    rightFull += Arrays.equals(expected, full) ? 1 : 0;
    right += Arrays.equals(expected, tiered) ? 1 : 0;
  }

  /** Counts one (query, KV head): whether the mass that was left out is within what was asked. */
  void addResidual(double left, double asked) {
    rows++;
    rowsWithin += left <= asked ? 1 : 0;
  }

  /** Counts what a choice of 64 and 256 tokens holds, and what the best choice would. */
  void addCaptured(double at64, double best64, double at256, double best256) {
    captured[0] += at64;
    captured[1] += at256;
    capturable[0] += best64;
    capturable[1] += best256;
    captures++;
  }

  double errorMean() {
    double sum = 0;
    for (int i = 0; i < errorCount; i++) {
      sum += errors[i];
    }
    return sum / errorCount;
  }

  double errorP99() {
    float[] sorted = Arrays.copyOf(errors, errorCount);
    Arrays.sort(sorted);
    return sorted[Math.max(0, (int) Math.ceil(.99 * errorCount) - 1)];
  }

  double meanDivergence() {
    return divergence / divergences;
  }

  double agreement() {
    return (double) agreed / divergences;
  }

  double rowsWithin() {
    return (double) rowsWithin / rows;
  }

  double captured(int index) {
    return captured[index] / captures;
  }

  double capturable(int index) {
    return capturable[index] / captures;
  }

  int cases() {
    return cases;
  }

  int right() {
    return right;
  }

  int rightFull() {
    return rightFull;
  }

  long deviceBytes() {
    return deviceBytes;
  }

  /** Most device bytes of a session, as a share of the full KV cache at 16 bits. */
  double deviceShare() {
    return deviceShare;
  }

  double bytesFetchedPerStep() {
    return (double) bytesFetched / steps;
  }

  double unhiddenMsPerStep() {
    return unhiddenNs / 1e6 / steps;
  }
}
