package io.kvtier.cachetier.grpc;

import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.PutResult;
import io.kvtier.page.PageKey;
import io.kvtier.v1.PutRequest;
import io.kvtier.v1.PutResponse;
import org.agrona.DirectBuffer;

/**
 * One Put call. Holds one message at a time: the next is asked for once this one is stored and
 * acknowledged, and not before the client has taken acknowledgements off the wire. gRPC calls it
 * back on one thread at a time. A message that is refused ends the call by the exception thrown;
 * what was acknowledged before stays.
 */
final class PutStream implements StreamObserver<PutRequest> {
  private final PageService pages;
  private final ServerCallStreamObserver<PutResponse> acks;
  private final String tenant = Tenants.current();
  private boolean owesRequest;

  private PutStream(PageService pages, ServerCallStreamObserver<PutResponse> acks) {
    this.pages = pages;
    this.acks = acks;
  }

  static PutStream open(PageService pages, ServerCallStreamObserver<PutResponse> acks) {
    PutStream stream = new PutStream(pages, acks);
    acks.disableAutoRequest();
    acks.setOnReadyHandler(stream::onReady);
    acks.setOnCancelHandler(() -> {});
    acks.request(1);
    return stream;
  }

  @Override
  public void onNext(PutRequest request) {
    PageKey key = PageKey.of(request.getKey());
    DirectBuffer page = PageRequests.page(request.getPage());
    PutResult result = pages.put(tenant, key, page, 0, page.capacity());
    acks.onNext(
        PutResponse.newBuilder()
            .setKey(request.getKey())
            .setExisted(result == PutResult.EXISTED)
            .build());
    owesRequest = true;
    onReady();
  }

  private void onReady() {
    if (owesRequest && acks.isReady()) {
      owesRequest = false;
      acks.request(1);
    }
  }

  /** The client has gone; there is nothing to undo. */
  @Override
  public void onError(Throwable t) {}

  @Override
  public void onCompleted() {
    acks.onCompleted();
  }
}
