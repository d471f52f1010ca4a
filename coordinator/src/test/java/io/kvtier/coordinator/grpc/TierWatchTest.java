package io.kvtier.coordinator.grpc;

import static org.assertj.core.api.Assertions.assertThat;

import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import io.kvtier.coordinator.prefix.PrefixDirectory;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.PrefixChain;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.Node;
import io.kvtier.v1.PageChange;
import io.kvtier.v1.PagesGrpc.PagesImplBase;
import io.kvtier.v1.Role;
import io.kvtier.v1.WatchRequest;
import io.kvtier.v1.WatchResponse;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What the directory says while a tier tells, breaks off, is started anew and leaves. */
@Timeout(60)
final class TierWatchTest {
  private static final Fingerprint MODEL = new Fingerprint(7, 8);
  private static final PageLayout ROT4 = new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64);
  private static final PageLayout RAW16 = new PageLayout(Codec.RAW16, Codec.RAW16, 2, 64);
  private static final long WAIT_SECONDS = 20;

  private static final PrefixChain CHAIN =
      PrefixChain.of("default", MODEL, IntStream.range(0, 192).toArray());

  private static final PageKey SINKS = PageKey.ofPrefix(CHAIN, 0, 100, MODEL, 0, RAW16);

  /** One call of the coordinator's. */
  private record Call(WatchRequest request, StreamObserver<WatchResponse> observer) {}

  private final BlockingQueue<Call> calls = new LinkedBlockingQueue<>();
  private final Endpoint tier =
      Endpoint.start(
          EndpointConfig.loopback(),
          List.of(
              new PagesImplBase() {
                @Override
                public void watch(WatchRequest request, StreamObserver<WatchResponse> observer) {
                  calls.add(new Call(request, observer));
                }
              }),
          new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
          Executors.newVirtualThreadPerTaskExecutor());

  private volatile List<Node> members =
      List.of(
          Node.newBuilder()
              .setNodeId("t1")
              .setRole(Role.ROLE_TIER)
              .setTarget(tier.target())
              .build());

  private final TierWatch watch =
      new TierWatch(new PrefixDirectory(1000), () -> members, System::nanoTime);

  @AfterEach
  void close() {
    watch.close();
    tier.close();
  }

  private Call nextCall() throws InterruptedException {
    Call call = calls.poll(WAIT_SECONDS, TimeUnit.SECONDS);
    assertThat(call).as("a call to watch").isNotNull();
    return call;
  }

  private static PageKey page(int page) {
    return PageKey.ofPrefix(CHAIN, page, page, MODEL, 0, ROT4);
  }

  private static WatchResponse.Builder snapshot(long instance, PageKey... keys) {
    WatchResponse.Builder part = WatchResponse.newBuilder().setInstance(instance).setSnapshot(true);
    for (PageKey key : keys) {
      part.addKeys(key.toByteString());
    }
    return part;
  }

  private static WatchResponse event(long sequence, PageKey key, boolean stored) {
    return WatchResponse.newBuilder()
        .setInstance(1)
        .setSequence(sequence)
        .addChanges(PageChange.newBuilder().setKey(key.toByteString()).setStored(stored))
        .build();
  }

  private int pages() {
    return watch.find(CHAIN, 1, Codec.ROT4).pages();
  }

  private static void await(BooleanSupplier reached) {
    long deadlineNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_SECONDS);
    while (!reached.getAsBoolean()) {
      assertThat(System.nanoTime()).isLessThan(deadlineNs);
      Thread.onSpinWait();
    }
  }

  @Test
  void aTierHasToldAllOnceItsSnapshotIsWholeAndItsEventsAreFollowed() throws Exception {
    assertThat(watch.whole()).isFalse();
    Call first = nextCall();
    first.observer.onNext(snapshot(1, SINKS, page(0)).setSnapshotBegins(true).build());
    await(() -> pages() == 1);
    assertThat(watch.whole()).isFalse();
    // Broken off in the middle: the next begins anew.
    first.observer.onError(Status.UNAVAILABLE.asRuntimeException());
    Call second = nextCall();
    assertThat(second.request.getInstance()).isZero();
    assertThat(watch.whole()).isFalse();
    second.observer.onNext(
        snapshot(1, SINKS, page(0), page(1))
            .setSnapshotBegins(true)
            .setSnapshotEnds(true)
            .setSequence(5)
            .build());
    await(watch::whole);
    assertThat(pages()).isEqualTo(2);
    second.observer.onNext(event(6, page(2), true));
    await(() -> pages() == 3);
    second.observer.onNext(event(7, page(1), false));
    await(() -> pages() == 1);
    // A stream that breaks goes on from there, and what was told counts until then.
    second.observer.onError(Status.UNAVAILABLE.asRuntimeException());
    Call third = nextCall();
    assertThat(third.request.getInstance()).isEqualTo(1);
    assertThat(third.request.getSequence()).isEqualTo(7);
    assertThat(pages()).isEqualTo(1);
    assertThat(watch.whole()).isTrue();
  }

  /** What it had before is gone, or told again. */
  @Test
  void aTierThatWasStartedAnewHasOnlyWhatItTellsThen() throws Exception {
    Call first = nextCall();
    first.observer.onNext(
        snapshot(1, SINKS, page(0), page(1)).setSnapshotBegins(true).setSnapshotEnds(true).build());
    await(() -> pages() == 2);
    first.observer.onError(Status.UNAVAILABLE.asRuntimeException());
    Call second = nextCall();
    second.observer.onNext(snapshot(2, SINKS).setSnapshotBegins(true).build());
    await(() -> pages() == 0);
    assertThat(watch.whole()).isFalse();
    second.observer.onNext(snapshot(2, page(0)).setSnapshotEnds(true).build());
    await(watch::whole);
    assertThat(pages()).isEqualTo(1);
  }

  @Test
  void aTierThatLeavesTakesItsPagesAlong() throws Exception {
    Call first = nextCall();
    first.observer.onNext(
        snapshot(1, SINKS, page(0)).setSnapshotBegins(true).setSnapshotEnds(true).build());
    await(() -> pages() == 1);
    members = List.of();
    await(() -> pages() == 0);
    assertThat(watch.keys()).isZero();
  }
}
