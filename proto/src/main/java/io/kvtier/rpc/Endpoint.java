package io.kvtier.rpc;

import io.grpc.BindableService;
import io.grpc.Server;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.protobuf.services.ProtoReflectionServiceV1;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.TimeUnit;

/**
 * One service's listeners: a gRPC server with the standard health and reflection services beside
 * its own, and an HTTP server with the {@code /metrics} and {@code /health} pages. Owns and closes
 * both and the executor its handlers run on; {@link #close} is idempotent.
 */
public final class Endpoint implements AutoCloseable {
  /** Largest message any kvtier service accepts, in bytes; larger ones are RESOURCE_EXHAUSTED. */
  public static final int MESSAGE_BYTES_MAX = 64 << 20;

  /**
   * What the transport reads: more, since it can only break a stream where the service can refuse a
   * message.
   */
  private static final int TRANSPORT_BYTES_MAX = 2 * MESSAGE_BYTES_MAX;

  private static final int METADATA_BYTES_MAX = 16 << 10;
  private static final int CALLS_PER_CONNECTION_MAX = 1024;
  private static final long DRAIN_SECONDS = 5;

  private final String host;
  private final int port;
  private final Server server;
  private final HealthStatusManager health;
  private final OpsPages ops;
  private final ExecutorService executor;

  private Endpoint(
      String host,
      Server server,
      HealthStatusManager health,
      OpsPages ops,
      ExecutorService executor) {
    this.host = host;
    this.port = server.getPort();
    this.server = server;
    this.health = health;
    this.ops = ops;
    this.executor = executor;
  }

  /**
   * Binds both listeners and starts to serve.
   *
   * @param executor runs the handlers; closed with the endpoint
   * @throws KvtierException UNAVAILABLE if an address cannot be bound
   */
  public static Endpoint start(
      EndpointConfig config,
      List<BindableService> services,
      PrometheusMeterRegistry meters,
      ExecutorService executor) {
    HealthStatusManager health = new HealthStatusManager();
    NettyServerBuilder builder =
        NettyServerBuilder.forAddress(new InetSocketAddress(config.host(), config.port()))
            .executor(executor)
            .intercept(new CallMeters(meters))
            .intercept(new StatusInterceptor())
            .maxInboundMessageSize(TRANSPORT_BYTES_MAX)
            .maxInboundMetadataSize(METADATA_BYTES_MAX)
            .maxConcurrentCallsPerConnection(CALLS_PER_CONNECTION_MAX)
            .addService(health.getHealthService())
            .addService(ProtoReflectionServiceV1.newInstance());
    services.forEach(builder::addService);
    Server server = null;
    try {
      server = builder.build().start();
      OpsPages ops = OpsPages.start(config, meters);
      for (BindableService service : services) {
        health.setStatus(
            service.bindService().getServiceDescriptor().getName(), ServingStatus.SERVING);
      }
      return new Endpoint(config.host(), server, health, ops, executor);
    } catch (IOException e) {
      if (server != null) {
        server.shutdownNow();
      }
      executor.close();
      throw new KvtierException(
          Code.UNAVAILABLE,
          "cannot listen on %s port %d (ops port %d): %s; give another, or 0 for any free one"
              .formatted(config.host(), config.port(), config.opsPort(), e.getMessage()),
          e);
    }
  }

  /** The gRPC target, host:port. */
  public String target() {
    return host + ":" + port;
  }

  /** The address of the pages, http://host:port. */
  public String opsUrl() {
    return "http://" + host + ":" + ops.port();
  }

  @Override
  public void close() {
    health.enterTerminalState();
    server.shutdown();
    try {
      if (!server.awaitTermination(DRAIN_SECONDS, TimeUnit.SECONDS)) {
        server.shutdownNow();
        server.awaitTermination(DRAIN_SECONDS, TimeUnit.SECONDS);
      }
    } catch (InterruptedException e) {
      server.shutdownNow();
      Thread.currentThread().interrupt();
    }
    ops.close();
    executor.shutdownNow();
  }
}
