package io.kvtier.deploy.bench;

import com.sun.management.OperatingSystemMXBean;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.ToDoubleFunction;

/**
 * Two services that do the same job in turns, each in its own process: times of single calls,
 * throughput and processor time, as medians over the rounds, once both are warm.
 */
final class Duel {
  private static final int WARMUP_ROUNDS = 1;
  private static final int ROUNDS = 7;
  private static final long ROUND_NS = 150_000_000;
  private static final int CALLS_MIN = 3;

  private Duel() {}

  /** A client's calls over one connection. */
  interface Contender {
    /** Does the job once. */
    void call();

    /** Undoes what the calls since the last time have done; not timed. */
    default void undo() {}
  }

  /** One service: its process, and its clients, each with a thread of its own. */
  record Side(ProcessHandle server, List<? extends Contender> clients) {}

  /**
   * What a round, or the median of the rounds, gave.
   *
   * @param gbPerSecond over all connections
   * @param cpuSecondsPerGb of server and client together; the kernel counts a server's time in
   *     steps of 10 ms
   */
  record Figures(double p50Us, double p99Us, double gbPerSecond, double cpuSecondsPerGb) {}

  /** Ours and the reference's figures. */
  record Outcome(Figures ours, Figures reference) {}

  static Outcome run(
      Side ours, Side reference, long bytesPerCall, Benchmark.Progress progress, String what) {
    List<Figures> ourRounds = new ArrayList<>();
    List<Figures> referenceRounds = new ArrayList<>();
    try (ExecutorService threads = Executors.newCachedThreadPool()) {
      progress.at(0, WARMUP_ROUNDS + ROUNDS, "warming up: " + what);
      WarmUp.untilSteady(() -> round(threads, ours, bytesPerCall).p50Us());
      WarmUp.untilSteady(() -> round(threads, reference, bytesPerCall).p50Us());
      for (int round = -WARMUP_ROUNDS; round < ROUNDS; round++) {
        Figures a = round(threads, ours, bytesPerCall);
        Figures b = round(threads, reference, bytesPerCall);
        if (round >= 0) {
          ourRounds.add(a);
          referenceRounds.add(b);
        }
        progress.at(round + WARMUP_ROUNDS + 1, WARMUP_ROUNDS + ROUNDS, what);
      }
    }
    return new Outcome(median(ourRounds), median(referenceRounds));
  }

  private static Figures round(ExecutorService threads, Side side, long bytesPerCall) {
    int clients = side.clients().size();
    CyclicBarrier start = new CyclicBarrier(clients);
    double cpuBefore = cpuSeconds(side.server());
    long beganNs = System.nanoTime();
    List<Future<long[]>> running = new ArrayList<>();
    for (Contender client : side.clients()) {
      running.add(
          threads.submit(() -> {
            start.await();
            return callsFor(client);
          }));
    }
    long[] callsNs = running.stream().map(Duel::join).flatMapToLong(Arrays::stream).toArray();
    double wallSeconds = (System.nanoTime() - beganNs) / 1e9;
    double cpu = cpuSeconds(side.server()) - cpuBefore;
    side.clients().forEach(Contender::undo);
    Arrays.sort(callsNs);
    double gb = callsNs.length * (double) bytesPerCall / 1e9;
    return new Figures(
        callsNs[callsNs.length / 2] / 1e3,
        callsNs[callsNs.length * 99 / 100] / 1e3,
        gb / wallSeconds,
        cpu / gb);
  }

  private static long[] callsFor(Contender client) {
    long[] callsNs = new long[1024];
    int calls = 0;
    long startNs = System.nanoTime();
    long nowNs = startNs;
    while (nowNs - startNs < ROUND_NS || calls < CALLS_MIN) {
      client.call();
      long thenNs = System.nanoTime();
      if (calls == callsNs.length) {
        callsNs = Arrays.copyOf(callsNs, 2 * calls);
      }
      callsNs[calls++] = thenNs - nowNs;
      nowNs = thenNs;
    }
    return Arrays.copyOf(callsNs, calls);
  }

  private static long[] join(Future<long[]> future) {
    try {
      return future.get();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while measuring", e);
    } catch (ExecutionException e) {
      if (e.getCause() instanceof RuntimeException cause) {
        throw cause;
      }
      throw new IllegalStateException(e.getCause());
    }
  }

  /** Processor time of this process and of the server. */
  private static double cpuSeconds(ProcessHandle server) {
    OperatingSystemMXBean own =
        (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    return own.getProcessCpuTime() / 1e9
        + server.info().totalCpuDuration().orElse(Duration.ZERO).toNanos() / 1e9;
  }

  private static Figures median(List<Figures> rounds) {
    return new Figures(
        median(rounds, Figures::p50Us),
        median(rounds, Figures::p99Us),
        median(rounds, Figures::gbPerSecond),
        median(rounds, Figures::cpuSecondsPerGb));
  }

  private static double median(List<Figures> rounds, ToDoubleFunction<Figures> figure) {
    double[] sorted = rounds.stream().mapToDouble(figure).sorted().toArray();
    return sorted[sorted.length / 2];
  }
}
