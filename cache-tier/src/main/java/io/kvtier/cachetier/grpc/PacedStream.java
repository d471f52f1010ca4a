package io.kvtier.cachetier.grpc;

import io.grpc.stub.ServerCallStreamObserver;
import java.util.Iterator;

/**
 * The answers of one server-streaming call, each made only when the client has taken enough of
 * those before: at most {@link #BUFFERED_BYTES} and one answer wait in the server. gRPC calls it
 * back on one thread at a time.
 *
 * @param <R> an answer
 */
final class PacedStream<R> {
  private static final int BUFFERED_BYTES = 1 << 20;

  private final ServerCallStreamObserver<R> out;
  private final Iterator<R> answers;

  private PacedStream(ServerCallStreamObserver<R> out, Iterator<R> answers) {
    this.out = out;
    this.answers = answers;
  }

  /**
   * Sends the answers, at least one, then completes the call; an exception of the iterator ends it
   * with a status.
   */
  static <R> void send(ServerCallStreamObserver<R> out, Iterator<R> answers) {
    PacedStream<R> stream = new PacedStream<>(out, answers);
    out.setOnReadyThreshold(BUFFERED_BYTES);
    out.setOnReadyHandler(stream::onReady);
    out.setOnCancelHandler(() -> {});
  }

  private void onReady() {
    while (answers.hasNext() && out.isReady()) {
      out.onNext(answers.next());
      if (!answers.hasNext()) {
        out.onCompleted();
      }
    }
  }
}
