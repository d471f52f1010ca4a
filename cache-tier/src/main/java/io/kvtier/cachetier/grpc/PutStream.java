package io.kvtier.cachetier.grpc;

import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.page.PageKey;
import io.kvtier.rpc.Tenant;
import io.kvtier.v1.PutResponse;
import io.kvtier.wire.IncomingBytes;
import io.kvtier.wire.PageMessages;
import io.kvtier.wire.Staging;

/**
 * One Put call. Holds one message at a time: the next is asked for once this one is stored and
 * acknowledged, and not before the client has taken acknowledgements off the wire. gRPC calls it
 * back on one thread at a time. A message that is refused ends the call by the exception thrown;
 * what was acknowledged before stays.
 */
final class PutStream implements StreamObserver<IncomingBytes> {
  /**
   * Where a page is put together from the transport's buffers, which hold it in pieces. Verifying
   * and storing it follow on the same thread, before the next message.
   */
  private static final ThreadLocal<Staging> STAGING =
      ThreadLocal.withInitial(() -> Staging.offHeap(PageStore.PAGE_BYTES_MAX));

  private final PageService pages;
  private final ServerCallStreamObserver<PutResponse> acks;
  private final String tenant = Tenant.current();
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
  public void onNext(IncomingBytes request) {
    PageMessages.Put put = PageMessages.readPut(request, STAGING.get());
    PageKey key = PageKey.of(put.key());
    KvtierException.requireInRange("page length", put.length(), 1, PageStore.PAGE_BYTES_MAX);
    PutResult result = pages.put(tenant, key, put.bytes(), put.offset(), put.length());
    acks.onNext(
        PutResponse.newBuilder().setKey(put.key()).setExisted(result == PutResult.EXISTED).build());
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
