package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.kvtier.KvtierException;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.SessionsGrpc;
import io.netty.buffer.PooledByteBufAllocator;
import io.netty.util.ResourceLeakDetector;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Queue;
import java.util.SplittableRandom;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * Many sessions, begun and ended in every way that engines do it, well or badly: afterwards nothing
 * of them is left anywhere. {@code -Dkvtier.leftovers.sessions=10000} for more of them.
 */
@Timeout(value = 8, unit = TimeUnit.MINUTES)
class LeftoversIT {
  private static final int SESSIONS = Integer.getInteger("kvtier.leftovers.sessions", 300);
  private static final long SEED = Long.getLong("kvtier.leftovers.seed", 11);

  /** Buffers of few sessions are watched one and all; of many a sample tells as much. */
  private static final ResourceLeakDetector.Level WATCHED =
      SESSIONS <= 1000 ? ResourceLeakDetector.Level.PARANOID : ResourceLeakDetector.Level.ADVANCED;

  private static final int ENGINES = 4;
  private static final int TOKENS = 200;
  private static final int TOKENS_MAX = 400;
  private static final int STEPS_MAX = 80;

  /** Whose pages outlive their sessions, as they are meant to. */
  private static final int PROMPTS = 3;

  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final Duration IDLE = Duration.ofSeconds(1);

  /** A worker tells of its idle sessions three times in it; longer than a busy machine is late. */
  private static final Duration NODE_LEASE = Duration.ofSeconds(15);

  /** Idle time and heartbeat, and what a busy machine takes. */
  private static final Duration GRACE = Duration.ofSeconds(60);

  /** Buffers are taken in chunks, and some chunks stay: of these a leak would make many. */
  private static final long BUFFER_SLACK_BYTES = 64L << 20;

  /** How a session ends, or fails to begin. */
  private enum End {
    UNUSED,
    USED,
    WITH_A_SHARED_PROMPT,
    PARENT_BEFORE_FORK,
    FORK_BEFORE_PARENT,
    TAKEN_OVER,
    IN_MID_PREFILL,
    ABANDONED_UNUSED,
    ABANDONED_IN_PREFILL,
    ABANDONED_IN_DECODE,
    ABANDONED_FORK,
    REFUSED,
    PLAN_REFUSED,
    LEFT_WHILE_OPENING
  }

  private final Queue<String> leaks = new ConcurrentLinkedQueue<>();
  private final Logger leakLog = Logger.getLogger(ResourceLeakDetector.class.getName());
  private final Handler leakRecorder =
      new Handler() {
        @Override
        public void publish(LogRecord entry) {
          leaks.add(entry.getMessage());
        }

        @Override
        public void flush() {}

        @Override
        public void close() {}
      };

  /** Held, since a logger that nobody holds forgets its level. */
  private final Logger servicesLog = Logger.getLogger("io.kvtier");

  private final Synthetic model = new Synthetic(SEED, TOKENS_MAX);
  private final Map<End, AtomicInteger> done = new EnumMap<>(End.class);

  @SuppressWarnings("NullAway.Init") // Started before the test.
  private AllInOne services;

  @SuppressWarnings("NullAway.Init")
  private KvtierClient client;

  @SuppressWarnings("NullAway.Init")
  private ManagedChannel raw;

  @BeforeEach
  void start() {
    ResourceLeakDetector.setLevel(WATCHED);
    leakLog.addHandler(leakRecorder);
    servicesLog.setLevel(Level.SEVERE);
    for (End end : End.values()) {
      done.put(end, new AtomicInteger());
    }
    services =
        AllInOne.start(
            new CoordinatorConfig(EndpointConfig.loopback(), 1024, NODE_LEASE, TIMEOUT),
            new CacheTierConfig(EndpointConfig.loopback(), 256L << 20, Optional.empty()),
            256L << 20);
    client = KvtierClient.connect(services.coordinator().target(), TIMEOUT);
    raw = Channels.open(services.coordinator().target());
  }

  @AfterEach
  void stop() {
    Channels.close(raw);
    client.close();
    services.close();
    ResourceLeakDetector.setLevel(ResourceLeakDetector.Level.SIMPLE);
    leakLog.removeHandler(leakRecorder);
    servicesLog.setLevel(null);
  }

  private static SessionOptions options() {
    return SessionOptions.of(Synthetic.geometry(), TOKENS_MAX);
  }

  /** Those of a session that will be abandoned. */
  private static SessionOptions brief() {
    return options().withIdleTimeout(IDLE);
  }

  /** One engine's sessions; it has connections of its own, as engines have. */
  private final class Engine implements AutoCloseable {
    private final KvtierClient connection =
        KvtierClient.connect(services.coordinator().target(), TIMEOUT);
    private final SplittableRandom random;

    Engine(long seed) {
      this.random = new SplittableRandom(seed);
    }

    void run(End end) {
      switch (end) {
        case UNUSED -> connection.open(options()).close();
        case USED -> use(options());
        case WITH_A_SHARED_PROMPT -> use(options().withTokenIds(prompt(random.nextInt(PROMPTS))));
        case PARENT_BEFORE_FORK -> fork(true);
        case FORK_BEFORE_PARENT -> fork(false);
        case TAKEN_OVER -> takeOver();
        case IN_MID_PREFILL -> {
          KvSession session = connection.open(options());
          sendHalf(session);
          session.close();
        }
        case ABANDONED_UNUSED -> {
          var _ = connection.open(brief());
        }
        case ABANDONED_IN_PREFILL -> sendHalf(connection.open(brief()));
        case ABANDONED_IN_DECODE -> decode(prefilled(brief()), 3);
        case ABANDONED_FORK -> {
          KvSession parent = prefilled(brief());
          var _ = parent.fork();
          parent.close();
        }
        case REFUSED -> requireRefused(options().withDeviceBytesMax(1000));
        case PLAN_REFUSED ->
            requireRefused(
                new SessionOptions(
                    Synthetic.geometry(),
                    TOKENS_MAX,
                    2000,
                    Optional.of(SessionIT.plan(HeadClass.HEAD_CLASS_DENSE, 0))));
        case LEFT_WHILE_OPENING -> leaveWhileOpening();
      }
      Objects.requireNonNull(done.get(end)).incrementAndGet();
    }

    private KvSession prefilled(SessionOptions options) {
      KvSession session = connection.open(options);
      int reused = session.reusedTokens();
      try (PrefillStream stream = session.prefill()) {
        for (int layer = 0; layer < LAYERS; layer++) {
          stream.chunk(
              layer,
              reused,
              TOKENS - reused,
              model.keys(layer, reused, TOKENS),
              model.values(layer, reused, TOKENS));
        }
        var _ = stream.finish(TOKENS);
      }
      return session;
    }

    private void use(SessionOptions options) {
      use(options, 1 + random.nextInt(STEPS_MAX));
    }

    void use(SessionOptions options, int steps) {
      KvSession session = prefilled(options);
      decode(session, steps);
      session.close();
    }

    private void decode(KvSession session, int steps) {
      try (DecodeStream stream = session.decode()) {
        float[] output = new float[Q_ROW];
        float[] query = new float[Q_ROW];
        for (int i = 0; i < steps; i++) {
          for (int layer = 0; layer < LAYERS; layer++) {
            query[random.nextInt(Q_ROW)] = 1;
            var _ = model.step(stream, layer, TOKENS + i, query, output);
          }
        }
      }
    }

    private void fork(boolean parentFirst) {
      KvSession parent = prefilled(options());
      KvSession fork = parent.fork();
      decode(fork, 70);
      if (parentFirst) {
        parent.close();
        decodeOne(fork, TOKENS + 70);
        fork.close();
      } else {
        fork.close();
        decode(parent, 2);
        parent.close();
      }
    }

    private void decodeOne(KvSession session, int position) {
      try (DecodeStream stream = session.decode()) {
        for (int layer = 0; layer < LAYERS; layer++) {
          var _ = model.step(stream, layer, position, new float[Q_ROW], new float[Q_ROW]);
        }
      }
    }

    private void takeOver() {
      KvSession former = prefilled(options());
      decode(former, 2);
      KvSession taken = connection.resume(former.info());
      assertThatThrownBy(() -> decodeOne(former, TOKENS + 2)).isInstanceOf(KvtierException.class);
      decodeOne(taken, TOKENS + 2);
      taken.close();
    }

    /** Breaks off in the middle of a prompt. */
    private void sendHalf(KvSession session) {
      try (PrefillStream stream = session.prefill()) {
        stream.chunk(0, 0, TOKENS, model.keys(0, 0, TOKENS), model.values(0, 0, TOKENS));
        stream.chunk(1, 0, 70, model.keys(1, 0, 70), model.values(1, 0, 70));
      }
    }

    /** What cannot be refused when it is opened is when its prompt is there. */
    private void requireRefused(SessionOptions options) {
      KvSession[] opened = new KvSession[1];
      assertThatThrownBy(
              () -> {
                opened[0] = connection.open(options);
                var _ = model.prefill(opened[0], TOKENS);
              })
          .isInstanceOfSatisfying(
              KvtierException.class,
              e -> assertThat(e.code()).as("%s", e).isEqualTo(KvtierException.Code.EXHAUSTED));
      if (opened[0] != null) {
        opened[0].close();
      }
    }

    /** Nobody ever hears of the session, if it was opened. */
    private void leaveWhileOpening() {
      OpenRequest request =
          OpenRequest.newBuilder()
              .setGeometry(Synthetic.geometry())
              .setTokensMax(TOKENS_MAX)
              .setIdleTimeoutMs((int) IDLE.toMillis())
              .build();
      try {
        var _ =
            SessionsGrpc.newBlockingStub(raw)
                .withDeadlineAfter(random.nextInt(3000), TimeUnit.MICROSECONDS)
                .open(request);
      } catch (StatusRuntimeException e) {
        // As it should be, most of the time.
      }
    }

    @Override
    public void close() {
      connection.close();
    }
  }

  private static List<Integer> prompt(int number) {
    return IntStream.range(0, TOKENS).map(i -> 1000 * number + i).boxed().toList();
  }

  /** Ends sessions in every way, in turn, by several engines at once. */
  private void runSessions(int count) throws Exception {
    End[] ends = End.values();
    try (ExecutorService engines = Executors.newFixedThreadPool(ENGINES)) {
      List<Future<?>> running = new ArrayList<>();
      for (int i = 0; i < ENGINES; i++) {
        int engine = i;
        running.add(
            engines.submit(() -> {
              try (Engine own = new Engine(SEED + engine)) {
                for (int at = engine; at < count; at += ENGINES) {
                  own.run(ends[at % ends.length]);
                }
              }
            }));
      }
      for (Future<?> each : running) {
        each.get();
      }
    }
  }

  /** What sessions take, anywhere. */
  private record Held(
      int sessions,
      double attached,
      double pendingBytes,
      long deviceBytes,
      double leases,
      double pinnedKeys,
      double leakedKeys,
      long tierBytes) {}

  private Held held() throws Exception {
    String tier = services.tier().tier().opsUrl();
    return new Held(
        client.list().size(),
        OpsPage.metric(services.worker().opsUrl(), "kvtier_worker_sessions"),
        OpsPage.metric(services.worker().opsUrl(), "kvtier_worker_pending_bytes"),
        services.worker().deviceBytesUsed(),
        OpsPage.metric(tier, "kvtier_tier_leases"),
        OpsPage.metric(tier, "kvtier_tier_pinned_keys"),
        OpsPage.metric(tier, "kvtier_tier_leases_leaked_keys"),
        services.tier().tier().bytesUsed());
  }

  /** Waits until idle sessions are ended and nothing is held but, in the tier, some pages. */
  private Held awaitNothingHeld() throws Exception {
    long deadlineNs = System.nanoTime() + GRACE.toNanos();
    Held held = held();
    while (!held.equals(new Held(0, 0, 0, 0, 0, 0, 0, held.tierBytes()))) {
      assertThat(System.nanoTime()).as("still held: %s", held).isLessThan(deadlineNs);
      TimeUnit.MILLISECONDS.sleep(50);
      held = held();
    }
    return held;
  }

  @Test
  void nothingIsLeftOfSessionsHoweverTheyEnd() throws Exception {
    // Whatever is made once, and all pages of the shared prompts.
    runSessions(ENGINES * End.values().length);
    try (Engine engine = new Engine(SEED)) {
      for (int prompt = 0; prompt < PROMPTS; prompt++) {
        engine.use(options().withTokenIds(prompt(prompt)), STEPS_MAX);
      }
    }
    Held before = awaitNothingHeld();
    LiveObjects objects = LiveObjects.ofServices();
    long bufferBytes = LiveObjects.bufferBytes();
    done.values().forEach(count -> count.set(0));

    long startNs = System.nanoTime();
    runSessions(SESSIONS);
    double seconds = (System.nanoTime() - startNs) / 1e9;
    Held after = awaitNothingHeld();
    System.out.printf(
        "%d sessions of seed %d in %.1f s: %s; left: %s%n", SESSIONS, SEED, seconds, done, after);
    assertThat(after).isEqualTo(before);
    assertThat(LiveObjects.ofServices().grownSince(objects, SESSIONS / 20)).isEmpty();
    assertThat(LiveObjects.bufferBytes() - bufferBytes).isLessThan(BUFFER_SLACK_BYTES);
    PooledByteBufAllocator.DEFAULT.directBuffer(16).release();
    assertThat(leaks).isEmpty();
  }
}
