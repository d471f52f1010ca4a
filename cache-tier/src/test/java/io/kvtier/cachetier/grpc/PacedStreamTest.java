package io.kvtier.cachetier.grpc;

import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;

import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.cachetier.near.NearPool;
import io.kvtier.page.PageLayout;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.ContainsRequest;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.GetResponse;
import io.kvtier.v1.PagesGrpc;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A client that reads slowly does not make the server read ahead without bound. */
final class PacedStreamTest {
  private static final PageLayout LAYOUT = TestPages.raw16(8, 128);
  private static final int PAGES = 256;

  /** The client's window, the server's buffer, and as much again for what the transports hold. */
  private static final long AHEAD_BYTES_MAX = 2 * ((4 << 20) + (1 << 20));

  @Test
  @Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
  void theServerReadsAheadABoundedNumberOfBytes() throws Exception {
    try (ChroniclePageStore store = ChroniclePageStore.openTemporary(128 << 20)) {
      PageService pages = new PageService(store);
      GetRequest.Builder request = GetRequest.newBuilder();
      for (int i = 0; i < PAGES; i++) {
        pages.put(key(1, i, 0, LAYOUT), page(LAYOUT, 0, i), 0, LAYOUT.pageLength());
        request.addKeys(key(1, i, 0, LAYOUT).toByteString());
      }
      try (NearPool near = NearPool.withDefaults(pages);
          Endpoint endpoint =
              Endpoint.start(
                  EndpointConfig.loopback(),
                  List.of(new PagesGrpcService(pages, new NearHandler(near))),
                  new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
                  Executors.newFixedThreadPool(2))) {
        ManagedChannel slow = Channels.open(endpoint.target());
        ManagedChannel other = Channels.open(endpoint.target());
        SlowReader reader = new SlowReader();
        PagesGrpc.newStub(slow)
            .withDeadlineAfter(60, TimeUnit.SECONDS)
            .get(request.build(), reader);
        readSlowly(reader, PagesGrpc.newBlockingStub(other), pages);
        Channels.close(slow);
        Channels.close(other);
      }
    }
  }

  private static void readSlowly(
      SlowReader reader, PagesGrpc.PagesBlockingStub other, PageService pages)
      throws InterruptedException {
    ContainsRequest anyKey =
        ContainsRequest.newBuilder().addKeys(key(1, 0, 0, LAYOUT).toByteString()).build();
    for (int i = 0; i < PAGES; i++) {
      GetResponse response = reader.next();
      assertThat(response.getIndex()).isEqualTo(i);
      // Gives the server's threads time and turns in which they could run ahead.
      for (int turn = 0; turn < (i == 0 ? 500 : 2); turn++) {
        assertThat(other.withDeadlineAfter(60, TimeUnit.SECONDS).contains(anyKey).getStored(0))
            .isTrue();
      }
      long aheadBytes = (pages.counts().hits() - i) * LAYOUT.pageLength();
      assertThat(aheadBytes).isLessThanOrEqualTo(AHEAD_BYTES_MAX);
    }
    assertThat(reader.status()).isEqualTo(Status.OK);
  }

  /** Takes one message from the wire each time it is asked. */
  private static final class SlowReader implements ClientResponseObserver<GetRequest, GetResponse> {
    private final BlockingQueue<GetResponse> received = new LinkedBlockingQueue<>();
    private final BlockingQueue<Status> ended = new LinkedBlockingQueue<>();
    private @Nullable ClientCallStreamObserver<GetRequest> call;

    @Override
    public void beforeStart(ClientCallStreamObserver<GetRequest> requestStream) {
      call = requestStream;
      requestStream.disableAutoRequestWithInitial(0);
    }

    GetResponse next() throws InterruptedException {
      if (call != null) {
        call.request(1);
      }
      GetResponse response = received.poll(60, TimeUnit.SECONDS);
      assertThat(response).isNotNull();
      return response;
    }

    Status status() throws InterruptedException {
      Status status = ended.poll(60, TimeUnit.SECONDS);
      assertThat(status).isNotNull();
      return status;
    }

    @Override
    public void onNext(GetResponse response) {
      received.add(response);
    }

    @Override
    public void onError(Throwable thrown) {
      ended.add(Status.fromThrowable(thrown));
    }

    @Override
    public void onCompleted() {
      ended.add(Status.OK);
    }
  }
}
