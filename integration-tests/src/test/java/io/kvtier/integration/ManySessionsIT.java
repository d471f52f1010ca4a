package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.HeadClass;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.IntFunction;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * 64 sessions that decode at once on one worker, each as fast as it can: none waits much longer
 * than the others, and none leaves anything.
 */
@Timeout(240)
class ManySessionsIT {
  private static final int SESSIONS = 64;
  private static final int TOKENS = 1500;
  private static final int TOKENS_MAX = 12_000;
  private static final int WARM_STEPS = 20;
  private static final int STEPS = 100;

  /** What the README promises of 64 sessions of equal load. */
  private static final double P99_MULTIPLE = 4;

  private static final int LIGHT = 16;
  private static final int HEAVY = 4;

  private AllInOne service;
  private KvtierClient client;

  @BeforeEach
  void start() {
    service =
        AllInOne.start(
            CoordinatorConfig.defaults(),
            new CacheTierConfig(EndpointConfig.loopback(), 512L << 20, Optional.empty()),
            512L << 20);
    client = KvtierClient.connect(service.coordinator().target());
  }

  @AfterEach
  void stop() throws Exception {
    client.close();
    service.close();
    for (Thread thread : serviceThreads()) {
      thread.join(10_000);
      assertThat(thread.isAlive()).as("%s ends with the services", thread.getName()).isFalse();
    }
  }

  private static List<Thread> serviceThreads() {
    return Thread.getAllStackTraces().keySet().stream()
        .filter(thread -> thread.getName().startsWith("kvtier"))
        // One a process, for all clients.
        .filter(thread -> !thread.getName().equals("kvtier-deadlines"))
        .toList();
  }

  private KvSession open(Synthetic model) {
    KvSession session =
        client.open(
            new SessionOptions(
                Synthetic.geometry(),
                TOKENS_MAX,
                0,
                Optional.of(SessionIT.plan(HeadClass.HEAD_CLASS_SPARSE, 128))));
    model.prefill(session, TOKENS);
    return session;
  }

  private static <T> List<T> together(int count, IntFunction<Callable<T>> calls) throws Exception {
    List<T> results = new ArrayList<>();
    try (ExecutorService threads = Executors.newFixedThreadPool(count)) {
      for (Future<T> result :
          threads.invokeAll(IntStream.range(0, count).mapToObj(calls).toList())) {
        results.add(result.get());
      }
    }
    return results;
  }

  /**
   * Decodes until this session or another has done all its steps; nanoseconds of each step of a
   * layer, sorted.
   */
  private static long[] decode(KvSession session, CyclicBarrier start, AtomicBoolean done)
      throws Exception {
    Synthetic model = new Synthetic(session.hashCode(), 64);
    long[] times = new long[STEPS * LAYERS];
    float[] output = new float[Q_ROW];
    float[] key = model.keys(0, 0, 1);
    int count = 0;
    start.await();
    try (DecodeStream stream = session.decode()) {
      for (int step = 0; step < WARM_STEPS + STEPS && !done.get(); step++) {
        for (int layer = 0; layer < LAYERS; layer++) {
          float[] query = model.query();
          long from = System.nanoTime();
          var _ = stream.step(layer, TOKENS + step, 1, query, key, key, new float[0], output);
          if (step >= WARM_STEPS) {
            times[count++] = System.nanoTime() - from;
          }
        }
      }
    } finally {
      done.set(true);
    }
    long[] own = Arrays.copyOf(times, count);
    Arrays.sort(own);
    return own;
  }

  private static long[] decode(KvSession session, CyclicBarrier start) throws Exception {
    return decode(session, start, new AtomicBoolean());
  }

  private static long percentile(long[] sorted, double share) {
    return sorted[(int) (share * (sorted.length - 1))];
  }

  /** Each session's time at a share of its steps, sorted. */
  private static long[] percentiles(List<long[]> times, double share) {
    return times.stream().mapToLong(own -> percentile(own, share)).sorted().toArray();
  }

  private static String line(String what, List<long[]> times) {
    StringBuilder line = new StringBuilder(what);
    for (double share : new double[] {.5, .9, .99}) {
      long[] of = percentiles(times, share);
      line.append(
          ", p%.0f us: least %,d, median %,d, most %,d"
              .formatted(
                  100 * share, of[0] / 1000, of[of.length / 2] / 1000, of[of.length - 1] / 1000));
    }
    return line.toString();
  }

  @Test
  void sessionsOfEqualLoadWaitAlikeAndClosingThemFreesEverything() throws Exception {
    Synthetic model = new Synthetic(41, TOKENS);
    // The first session has all threads and buffers made that the services share.
    KvSession first = open(model);
    long[] _ = decode(first, new CyclicBarrier(1));
    first.close();
    awaitTheCoordinatorsWatch();
    Map<String, Integer> threadsBefore = threads();

    List<KvSession> sessions = new ArrayList<>();
    for (int i = 0; i < SESSIONS; i++) {
      sessions.add(open(model));
    }
    CyclicBarrier start = new CyclicBarrier(SESSIONS);
    AtomicBoolean done = new AtomicBoolean();
    List<long[]> times = together(SESSIONS, i -> () -> decode(sessions.get(i), start, done));
    // Who waits for all the others has few steps, of which a percentile would not tell.
    int[] steps = times.stream().mapToInt(own -> own.length).sorted().toArray();
    System.out.printf("steps: least %d, median %d%n", steps[0], steps[SESSIONS / 2]);
    assertThat(steps[0]).isGreaterThan(steps[SESSIONS / 2] / 2);
    System.out.println(line("64 sessions", times));
    long[] p99 = percentiles(times, .99);
    assertThat((double) p99[SESSIONS - 1] / p99[SESSIONS / 2]).isLessThan(P99_MULTIPLE);

    assertThat(service.worker().deviceBytesUsed()).isGreaterThan(SESSIONS * 100_000L);
    List<Boolean> closed =
        together(
            SESSIONS,
            i ->
                () -> {
                  sessions.get(i).close();
                  return true;
                });
    assertThat(closed).hasSize(SESSIONS);
    assertThat(client.list()).isEmpty();
    assertThat(service.worker().deviceBytesUsed()).isZero();
    assertThat(service.tier().tier().bytesUsed()).isZero();
    assertThat(page("kvtier_tier_leases ")).isEqualTo("kvtier_tier_leases 0.0");
    assertThat(threads()).isEqualTo(threadsBefore);
  }

  /**
   * The tier has a thread for whoever watches it; the coordinator comes a moment after its start.
   */
  private static void awaitTheCoordinatorsWatch() {
    long deadlineNs = System.nanoTime() + 10_000_000_000L;
    while (!threads().containsKey("kvtier-tier-watch")) {
      assertThat(System.nanoTime()).as("the tier is watched within 10 s").isLessThan(deadlineNs);
      Thread.onSpinWait();
    }
  }

  /**
   * Threads of the services, by what they are for; the tier's for connections to it left out, which
   * its clients keep for the next to come, at most 16.
   */
  private static Map<String, Integer> threads() {
    Map<String, Integer> threads = new TreeMap<>();
    int connections = 0;
    for (Thread thread : serviceThreads()) {
      if (thread.getName().equals("kvtier-direct")) {
        connections++;
      } else {
        threads.merge(thread.getName().replaceAll("[0-9]+", "#"), 1, Integer::sum);
      }
    }
    assertThat(connections).isLessThanOrEqualTo(16);
    return threads;
  }

  /** A line of the tier's metrics. */
  private String page(String start) throws Exception {
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(service.tier().tier().opsUrl() + "/metrics")).build();
    try (HttpClient http = HttpClient.newHttpClient()) {
      return http.send(request, HttpResponse.BodyHandlers.ofLines())
          .body()
          .filter(line -> line.startsWith(start))
          .findFirst()
          .orElseThrow();
    }
  }

  /**
   * Sessions that send 64 queries a step do not hold up those that send one: most steps of these
   * take much less than such a step. Without giving way most wait for several of them. (A later
   * percentile tells of the machine's other work.)
   */
  @Test
  void longStepsGiveWayToShortOnes() throws Exception {
    Synthetic model = new Synthetic(42, TOKENS);
    List<KvSession> sessions = new ArrayList<>();
    for (int i = 0; i < LIGHT + HEAVY; i++) {
      sessions.add(open(model));
    }
    List<KvSession> forks = sessions.stream().map(KvSession::fork).toList();
    CyclicBarrier alone = new CyclicBarrier(LIGHT);
    List<long[]> without = together(LIGHT, i -> () -> decode(forks.get(i), alone));
    CyclicBarrier start = new CyclicBarrier(LIGHT + HEAVY);
    AtomicBoolean done = new AtomicBoolean();
    List<long[]> times =
        together(
            LIGHT + HEAVY,
            i ->
                () ->
                    i < LIGHT
                        ? decode(sessions.get(i), start, done)
                        : decodeLong(sessions.get(i), start, done));
    List<long[]> light = times.subList(0, LIGHT);
    List<long[]> heavy = times.subList(LIGHT, times.size());
    System.out.println(line("16 sessions", without));
    System.out.println(line("the same beside 4 of 64 queries a step", light));
    System.out.println(line("those 4", heavy));
    assertThat(percentiles(light, .5)[LIGHT / 2]).isLessThan(percentiles(heavy, .5)[HEAVY / 2] / 2);
  }

  /** Steps of 64 queries of one layer until others are done. */
  private static long[] decodeLong(KvSession session, CyclicBarrier start, AtomicBoolean done)
      throws Exception {
    Synthetic model = new Synthetic(session.hashCode(), 64);
    float[] queries = new float[64 * Q_ROW];
    for (int i = 0; i < 64; i++) {
      System.arraycopy(model.query(), 0, queries, i * Q_ROW, Q_ROW);
    }
    float[] keys = model.keys(0, 0, 64);
    float[] output = new float[queries.length];
    long[] times = new long[(TOKENS_MAX - TOKENS) / 64];
    int count = 0;
    start.await();
    try (DecodeStream stream = session.decode()) {
      while (count < times.length && !(done.get() && count > 0)) {
        int position = TOKENS + 64 * count;
        long from = System.nanoTime();
        var _ = stream.step(0, position, 64, queries, keys, keys, new float[0], output);
        times[count++] = System.nanoTime() - from;
      }
    }
    long[] own = Arrays.copyOf(times, count);
    Arrays.sort(own);
    return own;
  }
}
