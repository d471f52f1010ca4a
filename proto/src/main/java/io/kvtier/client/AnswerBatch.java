package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import io.kvtier.v1.Miss;
import io.kvtier.wire.PageMessages.Answer;
import java.util.function.IntFunction;

/** One request's answers, which must come in order; each is checked and given to the consumer. */
final class AnswerBatch {
  private final String peer;
  private final int answerBytesMax;
  private final int from;
  private final int size;
  private final IntFunction<PageKey> keys;
  private final PageConsumer consumer;
  private int served;

  /**
   * A batch of which nothing has come.
   *
   * @param from index of the batch's first page in what the consumer's caller asked
   * @param keys of the batch's pages
   */
  AnswerBatch(
      String peer,
      int answerBytesMax,
      int from,
      int size,
      IntFunction<PageKey> keys,
      PageConsumer consumer) {
    this.peer = peer;
    this.answerBytesMax = answerBytesMax;
    this.from = from;
    this.size = size;
    this.keys = keys;
    this.consumer = consumer;
  }

  boolean complete() {
    return served == size;
  }

  /** Pages given to the consumer. */
  int served() {
    return served;
  }

  void accept(Answer answer, AnswerChecks.Check check) {
    if (complete() || answer.index() != served) {
      throw new KvtierException(
          Code.INTERNAL,
          "%s answered page %d of a batch where %d of %d was due"
              .formatted(peer, answer.index(), served, size));
    }
    PageKey key = keys.apply(served);
    if (answer.miss() != Miss.MISS_NONE) {
      throw new KvtierException(
          Code.LOST, "%s does not have page %s any more (%s)".formatted(peer, key, answer.miss()));
    }
    if (answer.length() > answerBytesMax) {
      throw new KvtierException(
          Code.INTERNAL,
          "%s answered %d bytes for page %s; a page has at most %d"
              .formatted(peer, answer.length(), key, answerBytesMax));
    }
    check.requireSound(key, answer);
    consumer.accept(answer.bytes(), answer.offset(), answer.length(), from + served);
    served++;
  }
}
