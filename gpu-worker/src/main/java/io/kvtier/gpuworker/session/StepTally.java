package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.device.LayerPass;

/** Gathers what the queries of one step give and cost. One thread. */
final class StepTally {
  final float[] output;
  final float[] lse;
  private int selected;
  private int candidates;
  private int hit;
  private int late;
  private int fetched;
  private int near;
  private long computeNs;
  private long chooseNs;
  private long unhiddenNs;
  private long deviceBytes;

  StepTally(int outputs, int lses) {
    this.output = new float[outputs];
    this.lse = new float[lses];
  }

  void add(StepFetches.Cost cost, LayerPass pass, long elapsedNs, long bytes) {
    selected += pass.chosenTotal();
    candidates += pass.candidateTotal();
    hit += cost.hits();
    late += cost.late();
    fetched += cost.fetched();
    near += cost.near();
    computeNs += elapsedNs - cost.unhiddenNs();
    chooseNs += cost.chooseNs();
    unhiddenNs += cost.unhiddenNs();
    deviceBytes = Math.max(deviceBytes, bytes);
  }

  StepResult result(int prefetched, long bytesWasted, long bytesFetched) {
    return new StepResult(
        output,
        lse,
        selected,
        candidates,
        hit,
        late,
        fetched,
        near,
        prefetched,
        bytesWasted,
        bytesFetched,
        computeNs,
        chooseNs,
        unhiddenNs,
        deviceBytes);
  }
}
