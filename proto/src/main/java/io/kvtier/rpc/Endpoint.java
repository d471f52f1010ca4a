package io.kvtier.rpc;

import com.google.common.util.concurrent.MoreExecutors;
import io.grpc.BindableService;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallExecutorSupplier;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.protobuf.services.ProtoReflectionServiceV1;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import io.netty.channel.epoll.EpollServerDomainSocketChannel;
import io.netty.channel.unix.DomainSocketAddress;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;

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

  private static final Logger LOG = Logger.getLogger(Endpoint.class.getName());
  private static final int FLOW_CONTROL_WINDOW = 4 << 20;
  private static final int METADATA_BYTES_MAX = 16 << 10;
  private static final int CALLS_PER_CONNECTION_MAX = 1024;
  private static final long DRAIN_SECONDS = 5;

  private final String host;
  private final int port;
  private final Optional<Path> socket;
  private final List<Server> servers;
  private final HealthStatusManager health;
  private final OpsPages ops;
  private final ExecutorService executor;

  private Endpoint(
      EndpointConfig config,
      List<Server> servers,
      HealthStatusManager health,
      OpsPages ops,
      ExecutorService executor) {
    this.host = config.host();
    this.port = servers.getFirst().getPort();
    this.socket = config.socket();
    this.servers = servers;
    this.health = health;
    this.ops = ops;
    this.executor = executor;
  }

  /**
   * Binds the listeners and starts to serve.
   *
   * @param executor runs the handlers; closed with the endpoint
   * @throws KvtierException UNAVAILABLE if an address cannot be bound; PRECONDITION if the socket's
   *     path is taken
   */
  public static Endpoint start(
      EndpointConfig config,
      List<? extends BindableService> services,
      PrometheusMeterRegistry meters,
      ExecutorService executor) {
    return start(config, services, meters, executor, Set.of());
  }

  /**
   * Binds the listeners and starts to serve.
   *
   * @param executor runs the handlers; closed with the endpoint
   * @param brief full names of methods whose handlers run on the transport's threads, which saves
   *     two changes of thread a call; they must wait for nothing
   * @throws KvtierException UNAVAILABLE if an address cannot be bound; PRECONDITION if the socket's
   *     path is taken
   */
  public static Endpoint start(
      EndpointConfig config,
      List<? extends BindableService> services,
      PrometheusMeterRegistry meters,
      ExecutorService executor,
      Set<String> brief) {
    HealthStatusManager health = new HealthStatusManager();
    List<BindableService> all = new ArrayList<>(services);
    all.add(health.getHealthService());
    all.add(ProtoReflectionServiceV1.newInstance());
    List<Server> servers = new ArrayList<>();
    try {
      servers.add(
          build(
                  NettyServerBuilder.forAddress(
                      new InetSocketAddress(config.host(), config.port())),
                  all,
                  meters,
                  executor,
                  brief)
              .start());
      if (config.socket().isPresent()) {
        servers.add(startOn(config.socket().get(), all, meters, executor, brief));
      }
      OpsPages ops = OpsPages.start(config, meters);
      for (BindableService service : services) {
        health.setStatus(
            service.bindService().getServiceDescriptor().getName(), ServingStatus.SERVING);
      }
      return new Endpoint(config, servers, health, ops, executor);
    } catch (IOException e) {
      abandon(servers, executor);
      throw new KvtierException(
          Code.UNAVAILABLE,
          "cannot listen on %s port %d (ops port %d%s): %s; give another, or 0 for any free one"
              .formatted(
                  config.host(),
                  config.port(),
                  config.opsPort(),
                  config.socket().map(path -> ", socket " + path).orElse(""),
                  e.getMessage()),
          e);
    } catch (RuntimeException e) {
      abandon(servers, executor);
      throw e;
    }
  }

  private static void abandon(List<Server> servers, ExecutorService executor) {
    servers.forEach(Server::shutdownNow);
    executor.close();
  }

  private static Server build(
      NettyServerBuilder builder,
      List<BindableService> services,
      PrometheusMeterRegistry meters,
      ExecutorService executor,
      Set<String> brief) {
    builder
        .executor(executor)
        .intercept(new CallMeters(meters))
        .intercept(new StatusInterceptor())
        .flowControlWindow(FLOW_CONTROL_WINDOW)
        .maxInboundMessageSize(TRANSPORT_BYTES_MAX)
        .maxInboundMetadataSize(METADATA_BYTES_MAX)
        .maxConcurrentCallsPerConnection(CALLS_PER_CONNECTION_MAX);
    if (!brief.isEmpty()) {
      builder
          .executor(MoreExecutors.directExecutor())
          .callExecutor(new CallPlaces(executor, brief));
    }
    services.forEach(builder::addService);
    return builder.build();
  }

  /** Where each call's handler runs. */
  private record CallPlaces(Executor pool, Set<String> brief)
      implements ServerCallExecutorSupplier {
    @Override
    public <Q, R> Executor getExecutor(ServerCall<Q, R> call, Metadata metadata) {
      return brief.contains(call.getMethodDescriptor().getFullMethodName())
          ? MoreExecutors.directExecutor()
          : pool;
    }
  }

  private static Server startOn(
      Path path,
      List<BindableService> services,
      PrometheusMeterRegistry meters,
      ExecutorService executor,
      Set<String> brief)
      throws IOException {
    List<Server> server = new ArrayList<>();
    UnixSockets.bind(
        path,
        bound ->
            server.add(
                build(
                        NettyServerBuilder.forAddress(new DomainSocketAddress(bound.toString()))
                            .channelType(EpollServerDomainSocketChannel.class)
                            .bossEventLoopGroup(UnixSockets.threads())
                            .workerEventLoopGroup(UnixSockets.threads()),
                        services,
                        meters,
                        executor,
                        brief)
                    .start()));
    return server.getFirst();
  }

  /** The gRPC target, host:port. */
  public String target() {
    return host + ":" + port;
  }

  /** The gRPC target of the Unix-domain socket, unix:PATH, if there is one. */
  public Optional<String> socketTarget() {
    return socket.map(path -> UnixSockets.PREFIX + path);
  }

  /** The address of the pages, http://host:port. */
  public String opsUrl() {
    return "http://" + host + ":" + ops.port();
  }

  @Override
  public void close() {
    health.enterTerminalState();
    if (!servers.getFirst().isShutdown()) {
      socket.ifPresent(Endpoint::remove);
    }
    servers.forEach(Server::shutdown);
    try {
      for (Server server : servers) {
        if (!server.awaitTermination(DRAIN_SECONDS, TimeUnit.SECONDS)) {
          server.shutdownNow();
          server.awaitTermination(DRAIN_SECONDS, TimeUnit.SECONDS);
        }
      }
    } catch (InterruptedException e) {
      servers.forEach(Server::shutdownNow);
      Thread.currentThread().interrupt();
    }
    ops.close();
    executor.shutdownNow();
  }

  /** A socket that stays is taken for what it is by the next that serves on its path. */
  private static void remove(Path socket) {
    try {
      Files.deleteIfExists(socket);
    } catch (IOException e) {
      LOG.log(Level.WARNING, "cannot remove the socket " + socket, e);
    }
  }
}
