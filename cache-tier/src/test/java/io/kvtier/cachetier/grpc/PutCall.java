package io.kvtier.cachetier.grpc;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import io.kvtier.page.PageKey;
import io.kvtier.v1.PagesGrpc.PagesStub;
import io.kvtier.v1.PutRequest;
import io.kvtier.v1.PutResponse;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.agrona.concurrent.UnsafeBuffer;

/** The client's side of one Put call; keeps the acknowledgements and the status. */
final class PutCall implements StreamObserver<PutResponse> {
  final List<PutResponse> acks = new CopyOnWriteArrayList<>();
  private final CountDownLatch ended = new CountDownLatch(1);
  private final StreamObserver<PutRequest> requests;
  private volatile Status status = Status.UNKNOWN;

  PutCall(PagesStub stub) {
    this.requests = stub.withDeadlineAfter(60, TimeUnit.SECONDS).put(this);
  }

  PutCall send(PageKey key, UnsafeBuffer page) {
    return send(key.toByteString(), UnsafeByteOperations.unsafeWrap(page.byteArray()));
  }

  PutCall send(ByteString key, ByteString page) {
    requests.onNext(PutRequest.newBuilder().setKey(key).setPage(page).build());
    return this;
  }

  /** Ends the sending and waits for the status. */
  Status end() throws InterruptedException {
    requests.onCompleted();
    assertThat(ended.await(60, TimeUnit.SECONDS)).as("the call ends").isTrue();
    return status;
  }

  @Override
  public void onNext(PutResponse ack) {
    acks.add(ack);
  }

  @Override
  public void onError(Throwable thrown) {
    status = Status.fromThrowable(thrown);
    ended.countDown();
  }

  @Override
  public void onCompleted() {
    status = Status.OK;
    ended.countDown();
  }
}
