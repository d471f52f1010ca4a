package io.kvtier.cachetier;

import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.cachetier.grpc.NearHandler;
import io.kvtier.cachetier.grpc.PagesGrpcService;
import io.kvtier.cachetier.metrics.NearMeters;
import io.kvtier.cachetier.metrics.TierMeter;
import io.kvtier.cachetier.near.NearPool;
import io.kvtier.rpc.Closing;
import io.kvtier.rpc.Endpoint;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadFactory;

/**
 * A running cache tier: a page store, the Pages service over it, its meters and its listeners. Owns
 * them all; {@link #close} ends them in reverse order, is idempotent and safe on any thread.
 */
public final class CacheTier implements AutoCloseable {
  private static final int THREADS_MIN = 2;

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
      ChroniclePageStore store =
          parts.add(
              config
                  .dataDirectory()
                  .map(directory -> ChroniclePageStore.open(directory, config.bytesMax()))
                  .orElseGet(() -> ChroniclePageStore.openTemporary(config.bytesMax())));
      PrometheusMeterRegistry meters = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
      parts.add(meters::close);
      PageService service = new PageService(store);
      TierMeter.bindAll(meters, service.counts(), store, store.recovery());
      NearPool near = parts.add(NearPool.withDefaults(service));
      NearMeters.bind(meters, near);
      PagesGrpcService calls = new PagesGrpcService(service, new NearHandler(near));
      Endpoint endpoint =
          parts.add(Endpoint.start(config.endpoint(), List.of(calls), meters, workers()));
      return new CacheTier(store, endpoint, parts);
    } catch (RuntimeException e) {
      parts.closeAfter(e);
      throw e;
    }
  }

  /**
   * The threads of all handlers: platform threads, because the store's locks belong to threads. The
   * queue needs no bound of its own: each call has at most one task in it, and an endpoint bounds
   * the calls.
   */
  private static ExecutorService workers() {
    ThreadFactory threads = Thread.ofPlatform().name("kvtier-tier-", 0).daemon().factory();
    int count = Math.max(THREADS_MIN, Runtime.getRuntime().availableProcessors());
    return Executors.newFixedThreadPool(count, threads);
  }

  /** The gRPC target, host:port. */
  public String target() {
    return endpoint.target();
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
