package io.kvtier.deploy.demo;

import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.SessionBytes;
import io.kvtier.v1.StepStats;
import java.util.Arrays;

/** Gathers what the cases of one task and length give. One thread. */
final class Tally {
  private final String task;
  private final int length;
  private int cases;
  private int rightFull;
  private int rightKvtier;
  private int tokens;
  private int tokensAlike;
  private int tokensDecoded;
  private long fullNs;
  private long kvtierNs;
  private long unhiddenNs;
  private long sectionsHit;
  private long sectionsFetched;
  private long sectionsPrefetched;
  private long bytesFetched;
  private long deviceBytes;
  private long deviceBytesFull;
  private long tierBytes;
  private float[] errors = new float[1024];
  private int errorCount;

  Tally(String task, int length) {
    this.task = task;
    this.length = length;
  }

  void addStats(DecodeResponse response) {
    StepStats stats = response.getStats();
    unhiddenNs += stats.getUnhiddenNs();
    sectionsHit += stats.getSectionsHit();
    sectionsFetched += stats.getSectionsFetched();
    sectionsPrefetched += stats.getSectionsPrefetched();
    bytesFetched += stats.getBytesFetched();
    SessionBytes bytes = response.getBytes();
    deviceBytes = Math.max(deviceBytes, bytes.getDevice());
    deviceBytesFull = Math.max(deviceBytesFull, bytes.getDeviceFull());
    tierBytes = Math.max(tierBytes, bytes.getTier());
  }

  void addError(float error) {
    if (errorCount == errors.length) {
      errors = Arrays.copyOf(errors, 2 * errorCount);
    }
    errors[errorCount++] = error;
  }

  /**
   * Counts one question.
   *
   * @param expected the right answer; empty: there is none
   */
  void addCase(int[] expected, int[] full, int[] kvtier) {
    cases++;
    rightFull += Arrays.equals(expected, full) ? 1 : 0;
    rightKvtier += Arrays.equals(expected, kvtier) ? 1 : 0;
    for (int i = 0; i < full.length; i++) {
      tokens++;
      tokensAlike += full[i] == kvtier[i] ? 1 : 0;
    }
  }

  /** Counts the time of one question's decoding, both ways. */
  void addTime(int decoded, long spentFullNs, long spentKvtierNs) {
    tokensDecoded += decoded;
    fullNs += spentFullNs;
    kvtierNs += spentKvtierNs;
  }

  DemoRow row(boolean hasAnswers) {
    float[] sorted = Arrays.copyOf(errors, errorCount);
    Arrays.sort(sorted);
    double sum = 0;
    for (float error : sorted) {
      sum += error;
    }
    int last = errorCount - 1;
    return new DemoRow(
        task,
        length,
        cases,
        hasAnswers ? (double) rightFull / cases : null,
        hasAnswers ? (double) rightKvtier / cases : null,
        (double) tokensAlike / tokens,
        errorCount == 0 ? 0 : sum / errorCount,
        errorCount == 0 ? 0 : sorted[Math.min(last, (int) Math.ceil(.99 * errorCount) - 1)],
        deviceBytes,
        deviceBytesFull,
        tierBytes,
        fullNs / 1e6 / tokensDecoded,
        kvtierNs / 1e6 / tokensDecoded,
        sectionsHit,
        sectionsFetched,
        sectionsPrefetched,
        bytesFetched,
        unhiddenNs / 1e6 / tokensDecoded);
  }
}
