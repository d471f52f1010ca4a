package io.kvtier.deploy.bench.peer;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * A child process that answers each line on its input with one line on its output. Every wait is
 * bounded. After a time-out, or when the child has ended, it is gone for good and every further
 * call fails. One thread at a time.
 */
final class LineProcess implements AutoCloseable {
  private static final int ERROR_LINES_MAX = 20;
  private static final long END_SECONDS = 5;

  /** Answers never come unasked, so these are more than there can be. */
  private static final int ANSWERS_MAX = 16;

  private final String name;
  private final Process process;
  private final BufferedWriter input;
  private final BlockingQueue<Line> answers = new LinkedBlockingQueue<>(ANSWERS_MAX);
  private final Deque<String> errorLines = new ArrayDeque<>();
  private final Thread answerReader;
  private final Thread errorReader;

  private boolean gone;

  /** A line of output; its end is a line without text. */
  private record Line(@Nullable String text) {}

  /**
   * Starts the child.
   *
   * @param name for messages
   */
  LineProcess(String name, List<String> command, Map<String, String> environment, Path directory) {
    this.name = name;
    ProcessBuilder builder = new ProcessBuilder(command).directory(directory.toFile());
    builder.environment().putAll(environment);
    try {
      process = builder.start();
    } catch (IOException e) {
      throw new KvtierException(Code.UNAVAILABLE, name + " cannot be started: " + e, e);
    }
    input = process.outputWriter(StandardCharsets.UTF_8);
    // Platform threads: reading a pipe would hold a carrier that a measured service may need.
    answerReader =
        Thread.ofPlatform()
            .daemon()
            .name(name + " answers")
            .start(() -> {
              readLines(process.getInputStream(), line -> answers.offer(new Line(line)));
              answers.offer(new Line(null));
            });
    errorReader =
        Thread.ofPlatform()
            .daemon()
            .name(name + " errors")
            .start(() -> readLines(process.getErrorStream(), this::keepErrorLine));
  }

  private static void readLines(InputStream stream, Consumer<String> sink) {
    try (BufferedReader reader =
        new BufferedReader(new InputStreamReader(stream, StandardCharsets.UTF_8))) {
      for (String line = reader.readLine(); line != null; line = reader.readLine()) {
        sink.accept(line);
      }
    } catch (IOException e) {
      // The process was ended; what it wrote before was read.
    }
  }

  private void keepErrorLine(String line) {
    synchronized (errorLines) {
      if (errorLines.size() == ERROR_LINES_MAX) {
        errorLines.removeFirst();
      }
      errorLines.addLast(line);
    }
  }

  /** Sends a line and returns the answer. */
  String ask(String line, Duration timeout) {
    if (gone) {
      throw ended(line);
    }
    try {
      input.write(line);
      input.newLine();
      input.flush();
    } catch (IOException e) {
      throw ended(line);
    }
    return awaitLine(line, timeout);
  }

  /**
   * The next line of output.
   *
   * @param what is waited for, for messages
   */
  String awaitLine(String what, Duration timeout) {
    Line line;
    try {
      line = answers.poll(timeout.toNanos(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      destroy();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while waiting for " + name, e);
    }
    if (line == null) {
      destroy();
      throw new KvtierException(
          Code.DEADLINE,
          "%s did not answer '%s' within %s; it was ended%s"
              .formatted(name, what, timeout, said()));
    }
    if (line.text() == null) {
      throw ended(what);
    }
    return line.text();
  }

  private void destroy() {
    gone = true;
    process.destroyForcibly();
  }

  private KvtierException ended(String what) {
    String status = "";
    try {
      if (process.waitFor(END_SECONDS, TimeUnit.SECONDS)) {
        status = " with " + process.exitValue();
      }
      errorReader.join(Duration.ofSeconds(END_SECONDS));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    destroy();
    return new KvtierException(
        Code.UNAVAILABLE, "%s ended%s at '%s'%s".formatted(name, status, what, said()));
  }

  private String said() {
    synchronized (errorLines) {
      return errorLines.isEmpty() ? "" : "; it said: " + String.join("\n", errorLines);
    }
  }

  /** Ends the child: its input ends, which it may heed for a while, then it is killed. */
  @Override
  public void close() {
    gone = true;
    try {
      input.close();
    } catch (IOException e) {
      // It has ended already.
    }
    try {
      if (!process.waitFor(END_SECONDS, TimeUnit.SECONDS)) {
        process.destroyForcibly().waitFor(END_SECONDS, TimeUnit.SECONDS);
      }
      answerReader.join(Duration.ofSeconds(END_SECONDS));
      errorReader.join(Duration.ofSeconds(END_SECONDS));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      process.destroyForcibly();
    }
  }
}
