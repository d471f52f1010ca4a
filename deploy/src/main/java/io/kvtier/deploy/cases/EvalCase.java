package io.kvtier.deploy.cases;

import java.util.List;

/**
 * A context and the questions asked of it, each independent of the others.
 *
 * @param id unique name
 * @param task needle, multikey or kvlist
 * @param length nominal length in tokens, context and one question together
 * @param nKeys keys hidden in the context
 * @param contextIds token ids, the beginning-of-sequence id first; not copied
 * @param queries at least one
 */
@SuppressWarnings("ArrayRecordComponent") // Contexts are long, and read only.
public record EvalCase(
    String id, String task, int length, int nKeys, int[] contextIds, List<Query> queries) {

  public EvalCase {
    queries = List.copyOf(queries);
  }

  /**
   * One question: the prompt is contextIds followed by queryIds.
   *
   * @param depth position of the answer in the context, 0 to 1
   * @param queryIds token ids of the question; not copied
   * @param answerIds token ids that greedy decoding has to give; not copied
   */
  @SuppressWarnings("ArrayRecordComponent")
  public record Query(
      String key,
      double depth,
      int[] queryIds,
      int[] answerIds,
      String queryText,
      String answerText) {}
}
