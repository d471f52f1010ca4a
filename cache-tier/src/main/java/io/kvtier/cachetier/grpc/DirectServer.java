package io.kvtier.cachetier.grpc;

import io.grpc.Status;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.PageService;
import io.kvtier.rpc.UnixSockets;
import io.kvtier.wire.BufferBudget;
import io.kvtier.wire.FrameChannel;
import io.kvtier.wire.Frames;
import io.kvtier.wire.OutgoingBytes;
import io.kvtier.wire.SocketBuffers;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * The listeners of the direct path ({@link Frames}), over TCP and, where asked, over a Unix-domain
 * socket. Each connection has a platform thread, since the store's locks belong to threads; at most
 * {@link #CONNECTIONS_MAX} are open, further ones are refused, and those that are silent for too
 * long are closed. A connection holds .75 MiB of buffers, more where pages are longer: at most one
 * request and one answer. All together they hold at most {@link #BUFFER_BYTES_MAX}: a request that
 * needs more is refused. {@link #close} ends them all and is idempotent.
 */
public final class DirectServer implements AutoCloseable {
  /** Most connections at a time. */
  public static final int CONNECTIONS_MAX = 256;

  /** Most bytes of all connections' buffers. */
  public static final long BUFFER_BYTES_MAX = 512L << 20;

  private static final long ACCEPT_PAUSE_NS = 100_000_000L;

  /** How long connections may say nothing. */
  record Patience(Duration greeting, Duration idle) {
    static final Patience DEFAULT = new Patience(Duration.ofSeconds(10), Duration.ofMinutes(5));
  }

  private record Open(DirectConnection connection, Thread thread) {}

  private static final Logger LOG = Logger.getLogger(DirectServer.class.getName());

  private final PageService pages;
  private final Map<SocketChannel, Open> connections = new ConcurrentHashMap<>();
  private final List<ServerSocketChannel> listeners = new ArrayList<>();
  private final Optional<Path> socket;
  private final int connectionsMax;
  private final BufferBudget buffers;
  private final Patience patience;
  private final ScheduledExecutorService sweeper =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("kvtier-direct-sweep").factory());
  private int port;

  /** Whether the socket's path is ours. */
  private boolean bound;

  private DirectServer(
      PageService pages,
      Optional<Path> socket,
      int connectionsMax,
      long bufferBytesMax,
      Patience patience) {
    this.patience = patience;
    this.buffers = new BufferBudget(bufferBytesMax);
    this.pages = pages;
    this.connectionsMax = connectionsMax;
    this.socket = socket;
  }

  /**
   * Binds and starts to serve.
   *
   * @param port 0: the system chooses
   * @throws KvtierException UNAVAILABLE if an address cannot be bound; PRECONDITION if the socket's
   *     path is taken
   */
  public static DirectServer start(
      PageService pages, String host, int port, Optional<Path> socket) {
    return start(pages, host, port, socket, CONNECTIONS_MAX, BUFFER_BYTES_MAX, Patience.DEFAULT);
  }

  static DirectServer start(
      PageService pages,
      String host,
      int port,
      Optional<Path> socket,
      int connectionsMax,
      long bufferBytesMax,
      Patience patience) {
    DirectServer server = new DirectServer(pages, socket, connectionsMax, bufferBytesMax, patience);
    try {
      ServerSocketChannel tcp = ServerSocketChannel.open();
      server.listeners.add(tcp);
      tcp.bind(new InetSocketAddress(host, port));
      server.port = ((InetSocketAddress) tcp.getLocalAddress()).getPort();
      if (socket.isPresent()) {
        ServerSocketChannel unix = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        server.listeners.add(unix);
        UnixSockets.bind(socket.get(), path -> unix.bind(UnixDomainSocketAddress.of(path)));
        server.bound = true;
      }
    } catch (IOException e) {
      server.close();
      throw new KvtierException(
          Code.UNAVAILABLE,
          "cannot listen for the direct path on %s port %d%s: %s"
              .formatted(
                  host, port, socket.map(path -> ", socket " + path).orElse(""), e.getMessage()),
          e);
    } catch (RuntimeException e) {
      server.close();
      throw e;
    }
    for (ServerSocketChannel listener : server.listeners) {
      Thread.ofPlatform()
          .daemon()
          .name("kvtier-direct-accept")
          .start(() -> server.accept(listener));
    }
    long periodNs = Math.max(1_000_000, patience.greeting().toNanos() / 4);
    var _ =
        server.sweeper.scheduleWithFixedDelay(
            server::sweep, periodNs, periodNs, TimeUnit.NANOSECONDS);
    return server;
  }

  /** Ends connections whose client says nothing, or takes nothing, for too long. */
  private void sweep() {
    long nowNs = System.nanoTime();
    connections.forEach((channel, open) -> {
      if (open.connection()
          .stale(nowNs, patience.greeting().toNanos(), patience.idle().toNanos())) {
        try {
          channel.close();
        } catch (IOException e) {
          LOG.log(Level.FINE, "an idle connection could not be closed", e);
        }
      }
    });
  }

  /** The TCP port. */
  public int port() {
    return port;
  }

  /** The Unix-domain socket, if there is one. */
  public Optional<Path> socket() {
    return socket;
  }

  /** Bytes of all connections' buffers. */
  public long bufferBytes() {
    return buffers.used();
  }

  /** Connections that are open. */
  public int connections() {
    return connections.size();
  }

  private void accept(ServerSocketChannel listener) {
    while (listener.isOpen()) {
      try {
        take(listener.accept());
      } catch (ClosedChannelException closed) {
        return;
      } catch (IOException e) {
        LOG.log(Level.WARNING, "a connection of the direct path could not be taken", e);
        // Out of descriptors, for example: trying again at once would only fill the log.
        LockSupport.parkNanos(ACCEPT_PAUSE_NS);
      }
    }
  }

  /** Whatever goes wrong with one connection must not end the thread that takes them all. */
  private void take(SocketChannel channel) throws IOException {
    boolean taken = false;
    try {
      if (channel.getLocalAddress() instanceof InetSocketAddress) {
        channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
        SocketBuffers.bound(channel, channel.getRemoteAddress());
      }
      if (connections.size() >= connectionsMax) {
        refuse(channel);
      } else {
        serve(channel);
        taken = true;
      }
    } catch (IOException | RuntimeException | OutOfMemoryError e) {
      LOG.log(Level.WARNING, "a connection of the direct path could not be served", e);
    } finally {
      if (!taken) {
        channel.close();
      }
    }
  }

  private void serve(SocketChannel channel) {
    DirectConnection connection = new DirectConnection(pages, channel, buffers);
    Thread thread =
        Thread.ofPlatform()
            .daemon()
            .name("kvtier-direct")
            .unstarted(() -> {
              try {
                connection.run();
              } finally {
                connections.remove(channel);
              }
            });
    connections.put(channel, new Open(connection, thread));
    thread.start();
  }

  private void refuse(SocketChannel channel) throws IOException {
    try (FrameChannel frames = new FrameChannel(channel, DirectConnection.REQUEST_BYTES_MAX)) {
      frames.greet();
      frames.add(
          Frames.ERROR,
          OutgoingBytes.refusal(
              Status.Code.RESOURCE_EXHAUSTED.value(),
              "%d connections are open, which is the bound; close some".formatted(connectionsMax)));
      frames.flush();
    }
  }

  @Override
  public void close() {
    sweeper.shutdownNow();
    try {
      if (bound && listeners.getFirst().isOpen() && socket.isPresent()) {
        Files.deleteIfExists(socket.get());
      }
      for (ServerSocketChannel listener : listeners) {
        listener.close();
      }
      for (SocketChannel channel : connections.keySet()) {
        channel.close();
      }
      for (Open open : connections.values()) {
        open.thread().join();
      }
    } catch (IOException e) {
      LOG.log(Level.WARNING, "the direct path could not be closed well", e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
