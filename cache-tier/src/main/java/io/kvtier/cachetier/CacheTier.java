package io.kvtier.cachetier;

import io.grpc.ServerInterceptors;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.cachetier.grpc.Callers;
import io.kvtier.cachetier.grpc.DirectServer;
import io.kvtier.cachetier.grpc.NearHandler;
import io.kvtier.cachetier.grpc.PagesGrpcService;
import io.kvtier.cachetier.grpc.Watchers;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.memory.MemoryPageStore;
import io.kvtier.cachetier.metrics.NearMeters;
import io.kvtier.cachetier.metrics.RecoveryMeters;
import io.kvtier.cachetier.metrics.RemovalMeters;
import io.kvtier.cachetier.metrics.ScrubMeters;
import io.kvtier.cachetier.metrics.TierMeter;
import io.kvtier.cachetier.metrics.TimedPageStore;
import io.kvtier.cachetier.metrics.TransportMeters;
import io.kvtier.cachetier.near.NearPool;
import io.kvtier.cachetier.upkeep.Upkeep;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.rpc.Closing;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.Tenant;
import io.kvtier.v1.DirectResponse;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/**
 * A running cache tier: a page store as a cache, its upkeep, the Pages service over it, its meters
 * and its listeners. Owns them all; {@link #close} ends them in reverse order, is idempotent and
 * safe on any thread.
 */
public final class CacheTier implements AutoCloseable {
  private static final int THREADS_MIN = 2;

  /** Events kept for watchers: a GiB of pages of 64 KiB, four times over. */
  private static final int EVENTS_MAX = 1 << 16;

  private final PageStore store;
  private final Endpoint endpoint;
  private final Closing parts;

  private CacheTier(PageStore store, Endpoint endpoint, Closing parts) {
    this.store = store;
    this.endpoint = endpoint;
    this.parts = parts;
  }

  /**
   * Opens the store, recovering it if its last stop was not clean, and starts to serve.
   *
   * @throws io.kvtier.KvtierException if the data directory is in use or unusable, or an address
   *     cannot be bound
   */
  public static CacheTier start(CacheTierConfig config) {
    Closing parts = new Closing();
    try {
      PrometheusMeterRegistry meters = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
      parts.add(meters::close);
      PageStore store = openStore(config, meters);
      PageCache cache = parts.add(openCache(store, config, meters));
      PageService service = new PageService(cache, config.verification());
      TierMeter.bindAll(meters, service.counts(), cache);
      Upkeep upkeep = parts.add(new Upkeep(cache, config.scrubBytesPerSecond()));
      upkeep.scrub().ifPresent(scrub -> ScrubMeters.bind(meters, scrub));
      Watchers watchers = new Watchers(cache);
      Optional<DirectServer> direct = startDirect(config, service);
      direct.ifPresent(parts::add);
      NearPool near = parts.add(NearPool.withDefaults(service));
      NearMeters.bind(meters, near);
      PagesGrpcService calls =
          new PagesGrpcService(
              service, cache, watchers, new NearHandler(near), waysTo(config, direct, store));
      ThreadPoolExecutor workers = workers();
      TransportMeters.bindAll(
          meters,
          workers.getQueue()::size,
          calls::streams,
          () -> direct.map(DirectServer::connections).orElse(0));
      Endpoint endpoint =
          parts.add(
              Endpoint.start(
                  config.endpoint(),
                  List.of(() -> ServerInterceptors.intercept(calls, new Tenant(), new Callers())),
                  meters,
                  workers,
                  PagesGrpcService.BRIEF));
      // Before the endpoint, which waits for its calls to end.
      parts.add(watchers);
      return new CacheTier(cache, endpoint, parts);
    } catch (RuntimeException e) {
      parts.closeAfter(e);
      throw e;
    }
  }

  private static Optional<DirectServer> startDirect(CacheTierConfig config, PageService service) {
    return config.direct().path()
        ? Optional.of(
            DirectServer.start(
                service,
                config.endpoint().host(),
                config.direct().port(),
                config.endpoint().socket().map(CacheTier::directSocket)))
        : Optional.empty();
  }

  /** What callers are told of the ways beside gRPC. */
  private static DirectResponse waysTo(
      CacheTierConfig config, Optional<DirectServer> direct, PageStore store) {
    DirectResponse.Builder ways = DirectResponse.newBuilder();
    direct.ifPresent(server -> {
      ways.setPort(server.port());
      server.socket().ifPresent(path -> ways.setSocket(path.toAbsolutePath().toString()));
    });
    if (config.direct().files() && store instanceof ChroniclePageStore mapped) {
      ways.setPagesDirectory(mapped.directory().toAbsolutePath().toString())
          .setPagesInstance(mapped.instance());
    }
    return ways.build();
  }

  private static PageCache openCache(
      PageStore store, CacheTierConfig config, PrometheusMeterRegistry meters) {
    try {
      // Positive, and other than before any restart.
      long instance = ThreadLocalRandom.current().nextLong(1, 1L << 62);
      return new PageCache(
          new TimedPageStore(store, meters),
          config.limits(),
          new LeaseTable(config.leases(), instance),
          new EventLog(EVENTS_MAX, instance),
          new RemovalMeters(meters),
          System::nanoTime);
    } catch (RuntimeException e) {
      store.close();
      throw e;
    }
  }

  private static PageStore openStore(CacheTierConfig config, PrometheusMeterRegistry meters) {
    if (config.memory()) {
      return new MemoryPageStore(config.bytesMax());
    }
    ChroniclePageStore store =
        config
            .dataDirectory()
            .map(directory -> ChroniclePageStore.open(directory, config.bytesMax()))
            .orElseGet(() -> ChroniclePageStore.openTemporary(config.bytesMax()));
    RecoveryMeters.bind(meters, store.recovery());
    return store;
  }

  private static Path directSocket(Path socket) {
    return socket.resolveSibling(socket.getFileName() + ".direct");
  }

  /**
   * The threads of all handlers: platform threads, because the store's locks belong to threads. The
   * queue needs no bound of its own: each call has at most one task in it, and an endpoint bounds
   * the calls.
   */
  private static ThreadPoolExecutor workers() {
    ThreadFactory threads = Thread.ofPlatform().name("kvtier-tier-", 0).daemon().factory();
    int count = Math.max(THREADS_MIN, Runtime.getRuntime().availableProcessors());
    return new ThreadPoolExecutor(
        count, count, 0, TimeUnit.SECONDS, new LinkedBlockingQueue<>(), threads);
  }

  /** The gRPC target, host:port. */
  public String target() {
    return endpoint.target();
  }

  /** The gRPC target of the Unix-domain socket, unix:PATH, if there is one. */
  public Optional<String> socketTarget() {
    return endpoint.socketTarget();
  }

  /** The address of the {@code /metrics} and {@code /health} pages, http://host:port. */
  public String opsUrl() {
    return endpoint.opsUrl();
  }

  /** Sum of the lengths of the pages stored. */
  public long bytesUsed() {
    return store.bytesUsed();
  }

  /** Upper bound of {@link #bytesUsed}. */
  public long bytesMax() {
    return store.bytesMax();
  }

  @Override
  public void close() {
    parts.close();
  }
}
