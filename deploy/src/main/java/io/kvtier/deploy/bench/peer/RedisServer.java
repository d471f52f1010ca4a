package io.kvtier.deploy.bench.peer;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/**
 * A Redis server of this machine's own installation, in memory alone, on loopback and on a
 * Unix-domain socket. {@link #close} ends it.
 */
public final class RedisServer implements AutoCloseable {
  private static final Duration START_TIMEOUT = Duration.ofSeconds(10);
  private static final Duration POLL = Duration.ofMillis(20);
  private static final long END_SECONDS = 5;

  private final Process process;
  private final SocketAddress tcp;
  private final SocketAddress unix;

  private RedisServer(Process process, SocketAddress tcp, SocketAddress unix) {
    this.process = process;
    this.tcp = tcp;
    this.unix = unix;
  }

  /** The program, if it is on the path. */
  public static Optional<Path> installed() {
    return Stream.of(System.getenv().getOrDefault("PATH", "").split(File.pathSeparator))
        .map(directory -> Path.of(directory, "redis-server"))
        .filter(Files::isExecutable)
        .findFirst();
  }

  /**
   * Starts a server and waits until it answers.
   *
   * @param directory for its socket and its log
   */
  public static RedisServer start(Path program, Path directory) {
    try {
      int port;
      try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
        port = free.getLocalPort();
      }
      Path socket = directory.resolve("redis.sock");
      Process process =
          new ProcessBuilder(
                  program.toString(),
                  "--bind",
                  "127.0.0.1",
                  "--port",
                  Integer.toString(port),
                  "--unixsocket",
                  socket.toString(),
                  "--unixsocketperm",
                  "600",
                  "--save",
                  "",
                  "--appendonly",
                  "no",
                  "--dir",
                  directory.toString())
              .redirectErrorStream(true)
              .redirectOutput(directory.resolve("redis.log").toFile())
              .start();
      RedisServer server =
          new RedisServer(
              process,
              new InetSocketAddress(InetAddress.getLoopbackAddress(), port),
              UnixDomainSocketAddress.of(socket));
      server.awaitReady();
      return server;
    } catch (IOException e) {
      throw new UncheckedIOException("redis-server cannot be started", e);
    }
  }

  private void awaitReady() {
    long startNs = System.nanoTime();
    while (System.nanoTime() - startNs < START_TIMEOUT.toNanos() && process.isAlive()) {
      try (RespConnection connection = RespConnection.open(unix)) {
        if (connection.ping()) {
          return;
        }
      } catch (IOException | UncheckedIOException notYet) {
        pause();
      }
    }
    close();
    throw new KvtierException(
        Code.UNAVAILABLE, "redis-server did not answer within " + START_TIMEOUT);
  }

  private void pause() {
    try {
      Thread.sleep(POLL);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      close();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while redis-server was starting", e);
    }
  }

  /** A new connection over TCP, or over the Unix-domain socket. */
  public RespConnection connect(boolean overUnixSocket) {
    try {
      return RespConnection.open(overUnixSocket ? unix : tcp);
    } catch (IOException e) {
      throw new UncheckedIOException("cannot connect to redis-server", e);
    }
  }

  /** The server's process. */
  public ProcessHandle process() {
    return process.toHandle();
  }

  @Override
  public void close() {
    process.destroy();
    try {
      if (!process.waitFor(END_SECONDS, TimeUnit.SECONDS)) {
        process.destroyForcibly();
      }
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
    }
  }
}
