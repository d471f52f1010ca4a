package io.kvtier.cachetier.grpc;

import io.grpc.stub.ServerCallStreamObserver;

/**
 * The answers of one server-streaming call, each made only when the client has taken enough of
 * those before: at most {@link #BUFFERED_BYTES} and one answer wait in the server. gRPC calls it
 * back on one thread at a time.
 *
 * @param <R> an answer
 */
final class PacedStream<R> {
  static final int BUFFERED_BYTES = 1 << 20;

  /** About how many bytes wait for all clients: where there are many, each has less. */
  static final int BUFFERED_BYTES_TOTAL = 64 << 20;

  private static final int BUFFERED_BYTES_MIN = 64 << 10;

  /** Makes the answers, at least one. */
  interface Answers<R> {
    boolean hasNext();

    /** Makes the next answer and gives it to {@code out}, whose copy of it is made by then. */
    void sendNext(ServerCallStreamObserver<R> out);
  }

  private final ServerCallStreamObserver<R> out;
  private final Answers<R> answers;

  private PacedStream(ServerCallStreamObserver<R> out, Answers<R> answers) {
    this.out = out;
    this.answers = answers;
  }

  /**
   * Sends the answers, then completes the call; an exception of theirs ends it with a status.
   *
   * @throws io.kvtier.KvtierException EXHAUSTED above the limit
   */
  static <R> void send(ServerCallStreamObserver<R> out, Answers<R> answers, StreamLimit limit) {
    Runnable leave = limit.enter();
    PacedStream<R> stream = new PacedStream<>(out, answers);
    out.setOnReadyThreshold(
        Math.clamp(BUFFERED_BYTES_TOTAL / limit.open(), BUFFERED_BYTES_MIN, BUFFERED_BYTES));
    out.setOnReadyHandler(stream::onReady);
    out.setOnCancelHandler(leave);
    out.setOnCloseHandler(leave);
  }

  private void onReady() {
    while (answers.hasNext() && out.isReady()) {
      answers.sendNext(out);
      if (!answers.hasNext()) {
        out.onCompleted();
      }
    }
  }
}
