package io.kvtier.gpuworker.trace;

import static java.nio.charset.StandardCharsets.US_ASCII;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.util.Locale;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * Writes a trace, one line a step after the header, from a bounded queue and by a thread of its
 * own: who serves steps never waits for a disk. What does not fit the queue or the file is dropped
 * and counted; each line tells how many were dropped before it. Safe for any number of threads.
 */
public final class TraceFile implements StepListener, AutoCloseable {
  private static final int QUEUE_MAX = 1 << 14;
  private static final int BUFFER_BYTES = 1 << 16;
  private static final long CLOSE_MS_MAX = 5000;

  /** No session is named so. */
  private static final TraceStep END =
      new TraceStep("", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "D");

  private final String name;
  private final long bytesMax;
  private final long startNs;
  private final OutputStream out;
  private final BlockingQueue<TraceStep> queue;
  private final Thread thread;
  private final AtomicLong queueFull = new AtomicLong();
  private final AtomicLong unwritten = new AtomicLong();
  private final AtomicLong written = new AtomicLong();
  private volatile boolean closed;
  private volatile @Nullable IOException failure;
  private long bytes;

  /**
   * Starts a trace.
   *
   * @param startNs now, of the clock that steps' times are from
   * @throws KvtierException INVALID if the file cannot be written
   */
  public static TraceFile open(TraceConfig config, long startNs) {
    try {
      OutputStream out =
          new BufferedOutputStream(Files.newOutputStream(config.file()), BUFFER_BYTES);
      return new TraceFile(config.file().toString(), out, config.bytesMax(), QUEUE_MAX, startNs);
    } catch (IOException e) {
      throw new KvtierException(
          Code.INVALID,
          "cannot write the trace %s (%s); give a file in a directory that exists"
              .formatted(config.file(), e),
          e);
    }
  }

  /** A trace that goes to {@code out}, which is closed with it. */
  TraceFile(String name, OutputStream out, long bytesMax, int queueMax, long startNs)
      throws IOException {
    this.name = name;
    this.out = out;
    this.bytesMax = bytesMax;
    this.startNs = startNs;
    this.queue = new ArrayBlockingQueue<>(queueMax);
    writeLine(TraceStep.HEADER);
    this.thread = Thread.ofPlatform().daemon().name("kvtier-trace").unstarted(this::write);
    thread.start();
  }

  @Override
  public long sinceStartNs(long nowNs) {
    return nowNs - startNs;
  }

  @Override
  public void stepped(TraceStep step) {
    if (closed || !queue.offer(step)) {
      queueFull.incrementAndGet();
    }
  }

  private void write() {
    try {
      while (true) {
        TraceStep step = queue.poll();
        if (step == null) {
          // Nobody waits for the file now: what was traced so far can be read.
          flush();
          step = queue.take();
        }
        if (END.equals(step)) {
          return;
        }
        write(step);
      }
    } catch (InterruptedException e) {
      // Closing has given up on this thread.
      Thread.currentThread().interrupt();
    } finally {
      try {
        out.close();
      } catch (IOException e) {
        failure = e;
      }
    }
  }

  private void write(TraceStep step) {
    String line = step.toLine(dropped());
    if (failure != null || bytes + line.length() + 1 > bytesMax) {
      unwritten.incrementAndGet();
      return;
    }
    try {
      writeLine(line);
      written.incrementAndGet();
    } catch (IOException e) {
      failure = e;
      unwritten.incrementAndGet();
    }
  }

  private void flush() {
    try {
      if (failure == null) {
        out.flush();
      }
    } catch (IOException e) {
      failure = e;
    }
  }

  private void writeLine(String line) throws IOException {
    byte[] text = (line + "\n").getBytes(US_ASCII);
    out.write(text);
    bytes += text.length;
  }

  /** Steps that are not in the file and will not be. */
  public long dropped() {
    return queueFull.get() + unwritten.get();
  }

  /** One line for people: how many steps there are, how many are not, and why. */
  public String summary() {
    String text =
        String.format(Locale.ROOT, "trace: %,d steps of a layer in %s", written.get(), name);
    if (queueFull.get() > 0) {
      text += String.format(Locale.ROOT, "; %,d dropped, the queue was full", queueFull.get());
    }
    if (unwritten.get() > 0) {
      String why = failure == null ? "the file is full (--trace-bytes)" : "writing failed";
      text += String.format(Locale.ROOT, "; %,d dropped, %s", unwritten.get(), why);
    }
    return failure == null ? text : text + ": " + failure;
  }

  /** Writes what is in the queue, a few seconds at most, and ends the file. */
  @Override
  public void close() {
    closed = true;
    boolean interrupted = false;
    try {
      if (queue.offer(END, CLOSE_MS_MAX, TimeUnit.MILLISECONDS)) {
        thread.join(CLOSE_MS_MAX);
      }
    } catch (InterruptedException e) {
      interrupted = true;
    }
    if (thread.isAlive()) {
      thread.interrupt();
    }
    for (TraceStep left = queue.poll(); left != null; left = queue.poll()) {
      queueFull.addAndGet(left.equals(END) ? 0 : 1);
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
