package io.kvtier.integration;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** One service in a process of its own, started as the launcher starts it. */
final class ServiceProcess implements AutoCloseable {
  private static final Pattern READY =
      Pattern.compile(".* ready at (\\S+:[0-9]+) \\(pages at (http://\\S+)\\)");
  private static final long START_SECONDS = 60;

  /** For whoever looks for what went wrong. */
  private static final boolean PRINTED = Boolean.getBoolean("kvtier.services.print");

  private static final long END_SECONDS = 20;

  private final Process process;
  private final String name;
  private final List<String> lines = Collections.synchronizedList(new ArrayList<>());
  private final CompletableFuture<Matcher> ready = new CompletableFuture<>();

  /** Where it listens, as printed. */
  final String target;

  /** Where its pages are, as printed. */
  final String opsUrl;

  /** Starts {@code kvtier arguments...} and waits until it says that it is ready. */
  ServiceProcess(String... arguments) throws IOException, InterruptedException {
    name = arguments[0];
    Path home = Path.of(System.getProperty("kvtier.home"));
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.add("@" + home.resolve("deploy/kvtier.jvmargs"));
    command.addAll(List.of("-Xmx256m", "-Dkvtier.home=" + home));
    command.addAll(List.of("-cp", System.getProperty("java.class.path")));
    command.add("io.kvtier.deploy.Kvtier");
    command.addAll(List.of(arguments));
    process = new ProcessBuilder(command).redirectErrorStream(true).start();
    // Virtual ones would hold the carriers that others' need.
    Thread reader =
        Thread.ofPlatform().daemon().name("lines of " + arguments[0]).start(this::readLines);
    try {
      Matcher printed = ready.get(START_SECONDS, TimeUnit.SECONDS);
      target = printed.group(1);
      opsUrl = printed.group(2);
    } catch (ExecutionException | TimeoutException e) {
      kill();
      reader.join();
      throw new IllegalStateException("not ready: " + List.of(arguments) + ": " + lines, e);
    }
  }

  private void readLines() {
    try (BufferedReader reader =
        new BufferedReader(new InputStreamReader(process.getInputStream(), UTF_8))) {
      for (String line = reader.readLine(); line != null; line = reader.readLine()) {
        lines.add(line);
        if (PRINTED) {
          System.out.printf(
              "%tT.%1$tL %s %d: %s%n", System.currentTimeMillis(), name, process.pid(), line);
        }
        Matcher matcher = READY.matcher(line);
        if (matcher.matches()) {
          ready.complete(matcher);
        }
      }
    } catch (IOException e) {
      ready.completeExceptionally(new UncheckedIOException(e));
    }
    ready.completeExceptionally(new IllegalStateException("it ended"));
  }

  /** Waits until it has printed a line with these words. */
  void awaitLine(String words) throws InterruptedException {
    long deadlineNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(START_SECONDS);
    while (List.copyOf(lines).stream().noneMatch(line -> line.contains(words))) {
      if (System.nanoTime() > deadlineNs) {
        throw new IllegalStateException("it has not said '" + words + "': " + lines);
      }
      TimeUnit.MILLISECONDS.sleep(20);
    }
  }

  /** A figure of its metrics page. */
  double metric(String meter) throws IOException, InterruptedException {
    return OpsPage.metric(opsUrl, meter);
  }

  /** Ends the process at once, as a crash does. */
  void kill() throws InterruptedException {
    process.destroyForcibly().waitFor();
  }

  /** Asks the process to end; kills it when it does not. */
  @Override
  public void close() {
    process.destroy();
    try {
      if (!process.waitFor(END_SECONDS, TimeUnit.SECONDS)) {
        throw new IllegalStateException("it did not end when asked to: " + lines);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      process.destroyForcibly();
    }
  }
}
