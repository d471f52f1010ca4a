package io.kvtier.cachetier;

import static io.kvtier.cachetier.TestPages.ROT4;
import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.reflection.v1.ServerReflectionGrpc;
import io.grpc.reflection.v1.ServerReflectionRequest;
import io.grpc.reflection.v1.ServerReflectionResponse;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.cache.CacheLimits;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.LeaseRequest;
import io.kvtier.v1.Miss;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.PutRequest;
import io.kvtier.v1.PutResponse;
import io.kvtier.v1.WatchRequest;
import io.kvtier.v1.WatchResponse;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Iterator;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The composed service: settings, listeners, meters, restart, close. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class CacheTierTest {
  private static final long BYTES_MAX = 16 << 20;

  @TempDir Path home;

  private CacheTierConfig config() {
    return new CacheTierConfig(
        EndpointConfig.loopback(), BYTES_MAX, Optional.of(home.resolve("pages")));
  }

  private static String fetch(String url) throws IOException, InterruptedException {
    try (HttpClient client = HttpClient.newHttpClient()) {
      HttpResponse<String> response =
          client.send(HttpRequest.newBuilder(URI.create(url)).build(), BodyHandlers.ofString());
      assertThat(response.statusCode()).isEqualTo(200);
      return response.body();
    }
  }

  /** Collects the one answer of a call. */
  private static final class OneAnswer<R> implements StreamObserver<R> {
    private final CompletableFuture<R> answer = new CompletableFuture<>();

    @Override
    public void onNext(R value) {
      answer.complete(value);
    }

    @Override
    public void onError(Throwable thrown) {
      answer.completeExceptionally(thrown);
    }

    @Override
    public void onCompleted() {}

    R get() throws Exception {
      return answer.get(60, TimeUnit.SECONDS);
    }
  }

  private static void putOne(ManagedChannel channel) throws Exception {
    OneAnswer<PutResponse> ack = new OneAnswer<>();
    StreamObserver<PutRequest> put =
        PagesGrpc.newStub(channel).withDeadlineAfter(60, TimeUnit.SECONDS).put(ack);
    put.onNext(
        PutRequest.newBuilder()
            .setKey(key(0).toByteString())
            .setPage(ByteString.copyFrom(page(ROT4, 0, 1).byteArray()))
            .build());
    assertThat(ack.get().getExisted()).isFalse();
    put.onCompleted();
  }

  private static Miss missOf(ManagedChannel channel) {
    return PagesGrpc.newBlockingStub(channel)
        .withDeadlineAfter(60, TimeUnit.SECONDS)
        .get(GetRequest.newBuilder().addKeys(key(0).toByteString()).build())
        .next()
        .getMiss();
  }

  @Test
  void servesPagesHealthReflectionAndMeters() throws Exception {
    try (CacheTier tier = CacheTier.start(config())) {
      ManagedChannel channel = Channels.open(tier.target());
      try {
        assertThat(missOf(channel)).isEqualTo(Miss.MISS_ABSENT);
        putOne(channel);
        assertThat(missOf(channel)).isEqualTo(Miss.MISS_NONE);
        assertThat(
                HealthGrpc.newBlockingStub(channel)
                    .withDeadlineAfter(60, TimeUnit.SECONDS)
                    .check(HealthCheckRequest.newBuilder().setService("kvtier.v1.Pages").build())
                    .getStatus())
            .isEqualTo(ServingStatus.SERVING);
        OneAnswer<ServerReflectionResponse> services = new OneAnswer<>();
        ServerReflectionGrpc.newStub(channel)
            .withDeadlineAfter(60, TimeUnit.SECONDS)
            .serverReflectionInfo(services)
            .onNext(ServerReflectionRequest.newBuilder().setListServices("").build());
        assertThat(services.get().toString()).contains("kvtier.v1.Pages");
      } finally {
        Channels.close(channel);
      }
      assertThat(tier.bytesUsed()).isEqualTo(ROT4.pageLength());
      assertThat(tier.bytesMax()).isEqualTo(BYTES_MAX);
      assertThat(fetch(tier.opsUrl() + "/health")).contains("SERVING");
      int length = ROT4.pageLength();
      assertThat(fetch(tier.opsUrl() + "/metrics").lines())
          .contains(
              "kvtier_tier_hits_pages_total 1.0",
              "kvtier_tier_misses_pages_total{reason=\"absent\"} 1.0",
              "kvtier_tier_misses_pages_total{reason=\"corrupt\"} 0.0",
              "kvtier_tier_puts_pages_total{result=\"stored\"} 1.0",
              "kvtier_tier_puts_pages_total{result=\"existed\"} 0.0",
              "kvtier_tier_in_bytes_total %s".formatted((double) length),
              "kvtier_tier_out_bytes_total %s".formatted((double) length),
              "kvtier_tier_used_bytes %s".formatted((double) length),
              "kvtier_tier_max_bytes 1.6777216E7",
              "kvtier_tier_stored_pages 1.0",
              "kvtier_tier_leases 0.0",
              "kvtier_tier_leases_leaked_keys 0.0",
              "kvtier_tier_removed_pages_total{reason=\"size\"} 0.0",
              "kvtier_tier_removed_age_seconds_count{reason=\"size\"} 0",
              "kvtier_tier_store_seconds_count{operation=\"put\"} 1",
              "kvtier_tier_scrub_flawed_pages_total 0.0",
              "kvtier_tier_recovered_pages 0.0",
              "kvtier_tier_dropped_pages 0.0");
    }
  }

  @Test
  void pagesSurviveARestartAndRecoveryIsMetered() throws Exception {
    try (CacheTier tier = CacheTier.start(config())) {
      ManagedChannel channel = Channels.open(tier.target());
      putOne(channel);
      Channels.close(channel);
    }
    Files.delete(home.resolve("pages").resolve("clean"));
    try (CacheTier tier = CacheTier.start(config())) {
      ManagedChannel channel = Channels.open(tier.target());
      assertThat(missOf(channel)).isEqualTo(Miss.MISS_NONE);
      Channels.close(channel);
      assertThat(fetch(tier.opsUrl() + "/metrics").lines())
          .contains("kvtier_tier_recovered_pages 1.0");
    }
  }

  /** Everything that the tier does by itself, by its own clock. */
  @Test
  void aTierInMemoryLeasesExpiresAndScrubs() throws Exception {
    CacheTierConfig config =
        new CacheTierConfig(
            EndpointConfig.loopback(),
            BYTES_MAX,
            Optional.empty(),
            true,
            new CacheLimits(Optional.of(Duration.ofSeconds(1)), Long.MAX_VALUE, Map.of()),
            LeaseLimits.defaults(),
            1 << 20,
            Verification.TIER);
    try (CacheTier tier = CacheTier.start(config)) {
      ManagedChannel channel = Channels.open(tier.target());
      try {
        putOne(channel);
        PagesGrpc.PagesBlockingStub stub =
            PagesGrpc.newBlockingStub(channel).withDeadlineAfter(60, TimeUnit.SECONDS);
        LeaseRequest request =
            LeaseRequest.newBuilder()
                .setOwner("test")
                .setTtlMs(1500)
                .addKeys(key(0).toByteString())
                .build();
        long begun = System.nanoTime();
        assertThat(stub.lease(request).getStoredList()).containsExactly(true);
        awaitMetric(tier, "kvtier_tier_stored_pages 0.0");
        assertThat(System.nanoTime() - begun).isGreaterThan(1_500_000_000L);
        assertThat(fetch(tier.opsUrl() + "/metrics").lines())
            .contains(
                "kvtier_tier_leases_expired_leases_total 1.0",
                "kvtier_tier_pinned_keys 0.0",
                "kvtier_tier_removed_pages_total{reason=\"ttl\"} 1.0",
                "kvtier_tier_removed_age_seconds_count{reason=\"ttl\"} 1")
            .noneMatch(line -> line.equals("kvtier_tier_scrub_verified_pages_total 0.0"))
            .noneMatch(line -> line.startsWith("kvtier_tier_recovered"));
      } finally {
        Channels.close(channel);
      }
    }
  }

  private static void awaitMetric(CacheTier tier, String line)
      throws IOException, InterruptedException {
    while (fetch(tier.opsUrl() + "/metrics").lines().noneMatch(line::equals)) {
      Thread.onSpinWait();
    }
  }

  @Test
  void aWatchDoesNotDelayAClose() {
    CacheTier tier = CacheTier.start(config());
    ManagedChannel channel = Channels.open(tier.target());
    try {
      Iterator<WatchResponse> watch =
          PagesGrpc.newBlockingStub(channel)
              .withDeadlineAfter(60, TimeUnit.SECONDS)
              .watch(WatchRequest.getDefaultInstance());
      assertThat(watch.next().getSnapshotEnds()).isTrue();
      long begun = System.nanoTime();
      tier.close();
      assertThat(System.nanoTime() - begun).as("no draining").isLessThan(4_000_000_000L);
      assertThatThrownBy(watch::hasNext).hasMessage("UNAVAILABLE: the tier is stopping");
    } finally {
      tier.close();
      Channels.close(channel);
    }
  }

  @Test
  void closeIsIdempotentAndFreesTheDirectoryAndThePort() {
    CacheTier tier = CacheTier.start(config());
    int port = Integer.parseInt(tier.target().substring(tier.target().lastIndexOf(':') + 1));
    tier.close();
    tier.close();
    EndpointConfig same = new EndpointConfig(EndpointConfig.LOOPBACK, port, 0);
    CacheTier.start(new CacheTierConfig(same, BYTES_MAX, Optional.of(home.resolve("pages"))))
        .close();
  }

  @Test
  void aPortInUseLeavesNothingOpen() throws IOException {
    try (ServerSocket taken = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      EndpointConfig endpoint =
          new EndpointConfig(EndpointConfig.LOOPBACK, taken.getLocalPort(), 0);
      CacheTierConfig config =
          new CacheTierConfig(endpoint, BYTES_MAX, Optional.of(home.resolve("pages")));
      assertThatThrownBy(() -> CacheTier.start(config))
          .isInstanceOfSatisfying(
              KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.UNAVAILABLE));
    }
    CacheTier.start(config()).close();
  }

  @ParameterizedTest
  @ValueSource(longs = {Long.MIN_VALUE, 0, (16 << 20) - 1, (64L << 40) + 1})
  void theBoundIsBounded(long bytesMax) {
    assertThatThrownBy(
            () -> new CacheTierConfig(EndpointConfig.loopback(), bytesMax, Optional.empty()))
        .isInstanceOf(KvtierException.class)
        .hasMessage("tier bytes max is %d; it must be 16777216..70368744177664", bytesMax);
  }

  @Test
  void memoryKeepsNoDirectory() {
    assertThatThrownBy(() ->
            new CacheTierConfig(
                EndpointConfig.loopback(),
                BYTES_MAX,
                Optional.of(home),
                true,
                CacheLimits.none(),
                LeaseLimits.defaults(),
                0,
                Verification.TIER))
        .isInstanceOf(KvtierException.class)
        .hasMessage(
            "data directory is %s, and pages are to be in plain memory: give one of the two", home);
  }

  @Test
  void aFileIsNoDataDirectory() throws IOException {
    Path file = Files.writeString(home.resolve("file"), "");
    assertThatThrownBy(
            () -> new CacheTierConfig(EndpointConfig.loopback(), BYTES_MAX, Optional.of(file)))
        .isInstanceOf(KvtierException.class)
        .hasMessageStartingWith("data directory is %s; it must be a directory", file);
  }

  @Test
  void theDefaultsAreLoopbackAndFourGibibytes() {
    assertThat(CacheTierConfig.loopback())
        .isEqualTo(new CacheTierConfig(EndpointConfig.loopback(), 4L << 30, Optional.empty()));
  }
}
