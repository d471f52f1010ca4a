package io.kvtier.deploy.cases;

import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.Prefill;
import java.util.Arrays;

/** Greedy exact match with a full cache: one prefill of a context serves all of its questions. */
record Recall(int right, int asked) {
  static Recall of(Decoder decoder, EvalCase evalCase) {
    FullKvCache cache = new FullKvCache(decoder.model().config());
    decoder.prefill(cache, evalCase.contextIds(), 0, Prefill.Progress.NONE);
    int context = cache.tokens();
    int right = 0;
    for (EvalCase.Query query : evalCase.queries()) {
      int[] answer = decoder.greedy(cache, context, query.queryIds(), query.answerIds().length);
      right += Arrays.equals(answer, query.answerIds()) ? 1 : 0;
      cache.truncate(context);
    }
    return new Recall(right, evalCase.queries().size());
  }

  Recall plus(Recall other) {
    return new Recall(right + other.right, asked + other.asked);
  }

  double ratio() {
    return (double) right / asked;
  }
}
