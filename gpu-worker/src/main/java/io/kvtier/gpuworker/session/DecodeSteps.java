package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.gpuworker.trace.TraceStep;

/** Serves the steps of a session's layers, and tells of each. Safe for any number of threads. */
final class DecodeSteps {
  private final String sessionId;
  private final LayerGrowth growth;
  private final LayerStep steps;
  private final StepListener listener;

  DecodeSteps(String sessionId, LayerGrowth growth, LayerStep steps, StepListener listener) {
    this.sessionId = sessionId;
    this.growth = growth;
    this.steps = steps;
    this.listener = listener;
  }

  /** Attends the queries of new tokens, and appends these. */
  StepResult step(
      SessionLayer target,
      int layer,
      int position,
      int tokens,
      float[] queries,
      float[] keys,
      float[] values) {
    long startNs = System.nanoTime();
    StepResult result;
    String classes;
    target.lock.lock();
    try {
      growth.requireNext(layer, target.device.tokens(), position, tokens);
      growth.requireRoom(target, tokens);
      classes = target.classes;
      result = steps.attend(target, layer, tokens, queries, keys, values);
      growth.append(target, layer, tokens, keys, values);
    } finally {
      target.lock.unlock();
    }
    listener.stepped(
        new TraceStep(
            sessionId,
            layer,
            position,
            tokens,
            listener.sinceStartNs(startNs),
            System.nanoTime() - startNs,
            result.unhiddenNs(),
            result.candidates(),
            result.selected(),
            result.hit(),
            result.late(),
            result.fetched(),
            result.bytesFetched(),
            classes));
    return result;
  }
}
