package io.kvtier.cachetier.grpc;

import static io.kvtier.cachetier.TestPages.ROT4;
import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.ServerInterceptors;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.MetadataUtils;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.Verification;
import io.kvtier.cachetier.cache.CacheLimits;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.memory.MemoryPageStore;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.page.PageKey;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.rpc.Tenant;
import io.kvtier.v1.DeleteRequest;
import io.kvtier.v1.LeaseRequest;
import io.kvtier.v1.LeaseResponse;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.ReleaseRequest;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.agrona.concurrent.UnsafeBuffer;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Leases, watches and tenants over a real loopback endpoint. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class LeaseWatchTenantTest {
  private static final int LENGTH = ROT4.pageLength();
  private static final int EVENTS_MAX = 1000;

  private final AtomicLong nowNs = new AtomicLong();
  private PageCache cache;
  private Watchers watchers;
  private Endpoint endpoint;
  private ManagedChannel channel;

  @BeforeEach
  void start() {
    start(7, 10, EVENTS_MAX);
  }

  private void start(long instance, int pages, int eventsMax) {
    cache =
        new PageCache(
            new MemoryPageStore((long) pages * LENGTH),
            CacheLimits.none(),
            new LeaseTable(LeaseLimits.defaults(), instance),
            new EventLog(eventsMax, instance),
            (reason, ageNs, length) -> {},
            nowNs::get);
    watchers = new Watchers(cache);
    PagesGrpcService service =
        new PagesGrpcService(new PageService(cache, Verification.TIER), cache, watchers);
    endpoint =
        Endpoint.start(
            EndpointConfig.loopback(),
            List.of(() -> ServerInterceptors.intercept(service, new Tenant())),
            new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
            Executors.newFixedThreadPool(2));
    channel = Channels.open(endpoint.target());
  }

  @AfterEach
  void stop() {
    watchers.close();
    Channels.close(channel);
    endpoint.close();
    cache.close();
  }

  private void restart(long instance, int pages, int eventsMax) {
    stop();
    start(instance, pages, eventsMax);
  }

  private PagesGrpc.PagesBlockingStub stub() {
    return PagesGrpc.newBlockingStub(channel).withDeadlineAfter(60, TimeUnit.SECONDS);
  }

  private PagesGrpc.PagesStub async() {
    return PagesGrpc.newStub(channel).withDeadlineAfter(60, TimeUnit.SECONDS);
  }

  private static PageKey keyOf(int index) {
    return key(1, index, 0, ROT4);
  }

  private static List<ByteString> keys(int... indices) {
    return Arrays.stream(indices).mapToObj(index -> keyOf(index).toByteString()).toList();
  }

  private void put(int... indices) {
    for (int index : indices) {
      cache.put(keyOf(index), page(ROT4, 0, index), 0, LENGTH);
    }
  }

  private static LeaseRequest.Builder request(int... indices) {
    return LeaseRequest.newBuilder().setOwner("s").setTtlMs(1000).addAllKeys(keys(indices));
  }

  private static void assertRefused(Status.Code code, String message, ThrowingCallable call) {
    StatusRuntimeException e = catchThrowableOfType(StatusRuntimeException.class, call);
    assertThat(e).isNotNull();
    assertThat(e.getStatus().getCode()).as("%s", e.getStatus()).isEqualTo(code);
    assertThat(e.getStatus().getDescription()).contains(message);
  }

  @Test
  void aLeaseTellsWhatIsThereAndPinsIt() {
    put(0, 1);
    LeaseResponse lease = stub().lease(request(0, 5, 1).build());
    assertThat(lease.getStoredList()).containsExactly(true, false, true);
    assertThat(lease.getExpiresInMs()).isEqualTo(1000);
    put(2, 3, 4, 6, 7, 8, 9, 10, 11, 12);
    assertThat(cache.contains(keyOf(0))).isTrue();
    DeleteRequest delete = DeleteRequest.newBuilder().addAllKeys(keys(0, 1, 12)).build();
    assertThat(stub().delete(delete).getDeleted()).as("not what is leased").isEqualTo(1);
    nowNs.addAndGet(TimeUnit.MILLISECONDS.toNanos(400));
    LeaseResponse renewed = stub().lease(request().setLeaseId(lease.getLeaseId()).build());
    assertThat(renewed.getLeaseId()).isEqualTo(lease.getLeaseId());
    assertThat(renewed.getExpiresInMs()).isEqualTo(1000);
    var _ = stub().release(ReleaseRequest.newBuilder().setOwner("s").build());
    assertThat(stub().delete(delete).getDeleted()).isEqualTo(2);
  }

  @Test
  void leasesAreFencedAndBounded() {
    LeaseResponse lease = stub().lease(request(0).setEpoch(3).build());
    assertRefused(
        Status.Code.FAILED_PRECONDITION,
        "epoch 2 of owner 's' is stale",
        () -> stub().lease(request(1).setEpoch(2).build()));
    assertRefused(
        Status.Code.FAILED_PRECONDITION,
        "epoch 2 of owner 's' is stale",
        () -> stub().release(ReleaseRequest.newBuilder().setOwner("s").setEpoch(2).build()));
    nowNs.addAndGet(TimeUnit.SECONDS.toNanos(1));
    assertRefused(
        Status.Code.NOT_FOUND,
        "has ended: lease its keys again",
        () -> stub().lease(request().setEpoch(3).setLeaseId(lease.getLeaseId()).build()));
    assertRefused(
        Status.Code.INVALID_ARGUMENT,
        "ttl_ms is 0; it must be 1..3600000",
        () -> stub().lease(request(0).setTtlMs(0).build()));
    assertRefused(
        Status.Code.INVALID_ARGUMENT,
        "ttl_ms is -1; it must be 1..3600000",
        () -> stub().lease(request(0).setTtlMs(-1).build()));
    assertRefused(
        Status.Code.INVALID_ARGUMENT,
        "epoch is -1",
        () -> stub().lease(request(0).setEpoch(-1).build()));
    assertRefused(
        Status.Code.INVALID_ARGUMENT,
        "number of keys is 1025; it must be 1..1024",
        () -> stub().lease(request(new int[1025]).build()));
    assertRefused(
        Status.Code.INVALID_ARGUMENT,
        "keys[0]: page key has 3 bytes",
        () -> stub().lease(request().addKeys(ByteString.copyFromUtf8("key")).build()));
    assertThat(cache.leases().leases()).isZero();
  }

  @Test
  void aWatchBeginsWithASnapshotAndGoesOnWithEvents() throws InterruptedException {
    put(0, 1);
    WatchedPages watched = new WatchedPages(true);
    watched.watch(async());
    watched.await(there -> there.equals(Set.copyOf(keys(0, 1))));
    put(2);
    cache.delete(keyOf(0));
    watched.await(there -> there.equals(Set.copyOf(keys(1, 2))));
    assertThat(watched.snapshots()).isEqualTo(1);
    assertThat(watched.sequence()).isEqualTo(4);
    watched.cancel();
    assertThat(watched.awaitEnd().getCode()).isEqualTo(Status.Code.CANCELLED);
  }

  @Test
  void eventsThatComeOneByOneAreSentTogether() throws InterruptedException {
    restart(10, 1000, EVENTS_MAX);
    WatchedPages watched = new WatchedPages(true);
    watched.watch(async());
    watched.await(_ -> watched.snapshots() == 1);
    long startNs = System.nanoTime();
    int pages = 200;
    for (int i = 0; i < pages; i++) {
      put(i);
      // A call's time passes, in which an event would go out by itself.
      var _ = stub().lease(request(0).setOwner("pace").build());
    }
    watched.await(there -> there.size() == pages);
    long periods = (System.nanoTime() - startNs) / WatchStream.GATHER_NS;
    assertThat(watched.messages()).isLessThanOrEqualTo((int) periods + 4);
  }

  @Test
  void aWatchGoesOnWhereItEndedUnlessTheTierWasStartedAnew() throws InterruptedException {
    put(0);
    WatchedPages watched = new WatchedPages(true);
    watched.watch(async());
    watched.await(there -> there.size() == 1);
    watched.cancel();
    watched.awaitEnd();
    put(1, 2);
    watched.watch(async());
    watched.await(there -> there.equals(Set.copyOf(keys(0, 1, 2))));
    assertThat(watched.snapshots()).as("no second snapshot").isEqualTo(1);
    restart(8, 10, EVENTS_MAX);
    assertThat(watched.awaitEnd())
        .extracting(Status::getCode, Status::getDescription)
        .containsExactly(Status.Code.UNAVAILABLE, "the tier is stopping");
    put(5, 6, 7, 8);
    watched.watch(async());
    watched.await(there -> there.equals(Set.copyOf(keys(5, 6, 7, 8))));
    assertThat(watched.snapshots()).isEqualTo(2);
  }

  @Test
  void aWatcherWhoDoesNotKeepUpIsCutOffAndStartsAgain() throws InterruptedException {
    restart(9, 100, EVENTS_MAX);
    UnsafeBuffer byteLong = new UnsafeBuffer(new byte[1]);
    // A snapshot that no buffer on the way holds.
    int pages = 20_000;
    for (int i = 0; i < pages; i++) {
      cache.put(keyOf(i), byteLong, 0, 1);
    }
    WatchedPages slow = new WatchedPages(false);
    WatchedPages quick = new WatchedPages(true);
    // By itself a window grows to megabytes.
    ManagedChannel slowChannel =
        NettyChannelBuilder.forTarget(endpoint.target())
            .usePlaintext()
            .flowControlWindow(1 << 16)
            .build();
    PagesGrpc.PagesStub slowStub =
        PagesGrpc.newStub(slowChannel).withDeadlineAfter(60, TimeUnit.SECONDS);
    slow.watch(slowStub);
    quick.watch(async());
    slow.await(there -> slow.snapshots() == 1);
    quick.await(there -> there.size() == pages);
    for (int i = 0; i <= EVENTS_MAX; i++) {
      int index = pages + i;
      cache.put(keyOf(index), byteLong, 0, 1);
      if (i % 100 == 0) {
        quick.await(there -> there.contains(keyOf(index).toByteString()));
      }
    }
    slow.take(Integer.MAX_VALUE);
    Status end = slow.awaitEnd();
    assertThat(end.getCode()).isEqualTo(Status.Code.RESOURCE_EXHAUSTED);
    assertThat(end.getDescription()).contains("events behind; the tier keeps 1000: watch again");
    assertThat(slow.sequence()).as("not one event, since one is missing").isEqualTo(pages);
    slow.watch(slowStub);
    slow.take(Integer.MAX_VALUE);
    int all = pages + EVENTS_MAX + 1;
    slow.await(there -> there.size() == all);
    assertThat(slow.snapshots()).isEqualTo(2);
    quick.await(there -> there.size() == all);
    assertThat(quick.snapshots()).isEqualTo(1);
    Channels.close(slowChannel);
  }

  @Test
  void watchersAreBounded() throws InterruptedException {
    WatchedPages[] all = new WatchedPages[Watchers.WATCHERS_MAX];
    for (int i = 0; i < all.length; i++) {
      all[i] = new WatchedPages(true);
      all[i].watch(async());
      WatchedPages one = all[i];
      one.await(there -> one.snapshots() == 1);
    }
    WatchedPages oneMore = new WatchedPages(true);
    oneMore.watch(async());
    Status refused = oneMore.awaitEnd();
    assertThat(refused.getCode()).isEqualTo(Status.Code.RESOURCE_EXHAUSTED);
    assertThat(refused.getDescription()).contains("tier has 64 watchers, which is its bound");
    all[0].cancel();
    all[0].awaitEnd();
    while (watchers.count() == all.length) {
      Thread.onSpinWait();
    }
    oneMore.watch(async());
    oneMore.await(there -> oneMore.snapshots() == 1);
  }

  /** Watches begun in the middle of it all end up knowing exactly what is there. */
  @Test
  void watchersAmidChangesKnowInTheEndWhatIsThere() throws Exception {
    restart(9, 200, 1 << 17);
    long seed = System.nanoTime();
    System.out.println("watchersAmidChangesKnowInTheEndWhatIsThere seed " + seed);
    Thread[] writers = new Thread[3];
    for (int t = 0; t < writers.length; t++) {
      SplittableRandom random = new SplittableRandom(seed + t);
      writers[t] =
          Thread.ofPlatform()
              .start(() -> {
                for (int i = 0; i < 10_000; i++) {
                  int index = random.nextInt(400);
                  if (random.nextInt(3) == 0) {
                    cache.delete(keyOf(index));
                  } else {
                    put(index);
                  }
                }
              });
    }
    WatchedPages[] watched = new WatchedPages[20];
    for (int i = 0; i < watched.length; i++) {
      watched[i] = new WatchedPages(true);
      watched[i].watch(async());
      WatchedPages one = watched[i];
      one.await(there -> one.snapshots() == 1);
    }
    for (Thread writer : writers) {
      writer.join();
    }
    Set<ByteString> held = new HashSet<>();
    cache.keys().forEachRemaining(key -> held.add(key.toByteString()));
    for (WatchedPages one : watched) {
      one.await(there -> one.sequence() == cache.events().last());
      assertThat(one.await(there -> true)).isEqualTo(held);
    }
  }

  private static PagesGrpc.PagesStub of(String tenant, PagesGrpc.PagesStub stub) {
    Metadata metadata = new Metadata();
    metadata.put(Tenant.METADATA, tenant);
    return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
  }

  @Test
  void pagesAreChargedToTheTenantOfTheCall() throws InterruptedException {
    PutCall ours = new PutCall(of("team-a", PagesGrpc.newStub(channel)));
    ours.send(keyOf(1), page(ROT4, 0, 1));
    ours.send(keyOf(2), page(ROT4, 0, 2));
    assertThat(ours.end()).isEqualTo(Status.OK);
    PutCall nobodys = new PutCall(PagesGrpc.newStub(channel));
    nobodys.send(keyOf(3), page(ROT4, 0, 3));
    nobodys.send(keyOf(1), page(ROT4, 0, 1));
    assertThat(nobodys.end()).isEqualTo(Status.OK);
    assertThat(cache.bytesUsed("team-a")).isEqualTo(2L * LENGTH);
    assertThat(cache.bytesUsed("default")).isEqualTo(LENGTH);
    PutCall wrong = new PutCall(of("team a", PagesGrpc.newStub(channel)));
    Status refused = wrong.end();
    assertThat(refused.getCode()).isEqualTo(Status.Code.INVALID_ARGUMENT);
    assertThat(refused.getDescription()).contains("tenant is 'team a'; it must be 1..64");
  }
}
