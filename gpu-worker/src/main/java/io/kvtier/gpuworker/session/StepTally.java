package io.kvtier.gpuworker.session;

/** Gathers what the queries of one step give and cost. One thread. */
final class StepTally {
  final float[] output;
  final float[] lse;
  private int selected;
  private int hit;
  private int fetched;
  private long computeNs;
  private long unhiddenNs;
  private long deviceBytes;

  StepTally(int outputs, int lses) {
    this.output = new float[outputs];
    this.lse = new float[lses];
  }

  void add(StepFetches.Cost cost, int chosen, long elapsedNs, long bytes) {
    selected += chosen;
    hit += cost.hits();
    fetched += cost.fetched();
    computeNs += elapsedNs - cost.unhiddenNs();
    unhiddenNs += cost.unhiddenNs();
    deviceBytes = Math.max(deviceBytes, bytes);
  }

  StepResult result(int prefetched, long bytesFetched) {
    return new StepResult(
        output,
        lse,
        selected,
        hit,
        fetched,
        prefetched,
        bytesFetched,
        computeNs,
        unhiddenNs,
        deviceBytes);
  }
}
