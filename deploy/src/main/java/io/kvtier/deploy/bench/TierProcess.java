package io.kvtier.deploy.bench;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.deploy.Kvtier;
import io.kvtier.rpc.Closing;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** A cache tier in a process of its own, as the launcher would start it. */
public final class TierProcess implements AutoCloseable {
  private static final long END_SECONDS = 10;
  private static final Path MEMORY = Path.of("/dev/shm");

  private final Process process;
  private final Path socket;
  private final String target;

  private TierProcess(Process process, Path socket, String target) {
    this.process = process;
    this.socket = socket;
    this.target = target;
  }

  /**
   * A directory for services, in memory where the system has such, that goes with {@code closing},
   * and that with the process: a benchmark that is stopped half-way leaves no servers behind. To
   * close twice does no harm.
   */
  public static Path directory(Closing closing) throws IOException {
    Path directory =
        Files.createTempDirectory(
            Files.isWritable(MEMORY) ? MEMORY : Path.of(System.getProperty("java.io.tmpdir")),
            "kvtier-bench-");
    closing.add(() -> remove(directory));
    Runtime.getRuntime().addShutdownHook(new Thread(closing::close, "kvtier-bench-end"));
    return directory;
  }

  private static void remove(Path directory) throws IOException {
    try (Stream<Path> paths = Files.walk(directory)) {
      for (Path path : paths.sorted(Comparator.reverseOrder()).toList()) {
        Files.deleteIfExists(path);
      }
    }
  }

  /**
   * Starts a tier and waits until it serves.
   *
   * @param directory for its pages, its socket and its log
   */
  public static TierProcess start(Path directory, long bytesMax) {
    Path home = Path.of(System.getProperty("kvtier.home", "."));
    Path socket = directory.resolve("tier.sock");
    Path java = Path.of(System.getProperty("java.home"), "bin", "java");
    List<String> command =
        List.of(
            java.toString(),
            "@" + home.resolve("deploy/kvtier.jvmargs"),
            "-Dkvtier.home=" + home,
            "-cp",
            System.getProperty("java.class.path"),
            Kvtier.class.getName(),
            "cache-tier",
            "--data",
            directory.resolve("pages").toString(),
            "--socket",
            socket.toString(),
            "--tier-bytes",
            Long.toString(bytesMax));
    try {
      Path log = directory.resolve("tier.log");
      Process process = new ProcessBuilder(command).redirectError(log.toFile()).start();
      try {
        return new TierProcess(process, socket, awaitReady(process, log));
      } catch (IOException | RuntimeException e) {
        process.destroyForcibly();
        throw e;
      }
    } catch (IOException e) {
      throw new UncheckedIOException("the cache tier cannot be started", e);
    }
  }

  @SuppressWarnings("resource") // Closing the reader would close the tier's output.
  private static String awaitReady(Process process, Path log) throws IOException {
    BufferedReader output =
        new BufferedReader(new InputStreamReader(process.getInputStream(), UTF_8));
    for (String line = output.readLine(); line != null; line = output.readLine()) {
      if (line.startsWith("cache-tier ready at ")) {
        return line.split(" ", 5)[3];
      }
    }
    throw new KvtierException(Code.UNAVAILABLE, "the cache tier ended at its start; see " + log);
  }

  /** The target to connect to, over TCP or over the Unix-domain socket. */
  public String target(boolean overUnixSocket) {
    return overUnixSocket ? "unix:" + socket : target;
  }

  /** The tier's process. */
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
