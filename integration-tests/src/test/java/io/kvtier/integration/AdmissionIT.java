package io.kvtier.integration;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.gpuworker.GpuWorker;
import io.kvtier.gpuworker.GpuWorkerConfig;
import io.kvtier.rpc.Closing;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.PrefillResponse;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * Sessions that there is no room for, at real services: they are refused with what there is, what
 * they need and what helps, and leave everything as it was.
 */
@Timeout(60)
class AdmissionIT {
  private static final int TOKENS = 1000;

  /** Exact rows of a dozen sessions or so. */
  private static final long DEVICE_BYTES = 4 << 20;

  private static final Pattern TOO_FEW =
      Pattern.compile(
          "device_bytes_max is ([0-9]+) .* take ([0-9]+); open the session with at least as many"
              + ".*");
  private static final Pattern TAILOR_TOO_FEW =
      Pattern.compile("device_bytes_max is ([0-9]+) and TailorKV's method takes [0-9]+ at");
  private static final Pattern FULL =
      Pattern.compile(
          "device memory is full: ([0-9]+) of ([0-9]+) bytes are used, ([0-9]+) more are needed;"
              + " close sessions or start the worker with more device bytes");

  private final Closing started = new Closing();

  @SuppressWarnings("NullAway.Init") // Started before each test.
  private AllInOne services;

  @SuppressWarnings("NullAway.Init")
  private KvtierClient client;

  @BeforeEach
  void start() {
    services =
        started.add(
            AllInOne.start(
                CoordinatorConfig.defaults(),
                new CacheTierConfig(EndpointConfig.loopback(), 64L << 20, Optional.empty()),
                DEVICE_BYTES));
    client = started.add(KvtierClient.connect(services.coordinator().target()));
  }

  @AfterEach
  void endAll() {
    started.close();
  }

  private static Matcher refusal(Pattern message, ThrowingCallable call) {
    List<Matcher> matched = new ArrayList<>();
    assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            KvtierException.class,
            e -> {
              assertThat(e.code()).as("%s", e).isEqualTo(Code.EXHAUSTED);
              Matcher matcher = message.matcher(String.valueOf(e.getMessage()));
              assertThat(matcher.find()).as("%s", e).isTrue();
              matched.add(matcher);
            });
    return matched.getFirst();
  }

  private void requireNothingLeft() {
    assertThat(client.list()).isEmpty();
    assertThat(services.worker().deviceBytesUsed()).isZero();
    assertThat(services.tier().tier().bytesUsed()).isZero();
  }

  private void requireDecodes(KvSession session) {
    Synthetic model = new Synthetic(5, TOKENS + 1);
    var _ = model.prefill(session, TOKENS);
    try (var stream = session.decode()) {
      for (int layer = 0; layer < Synthetic.LAYERS; layer++) {
        float[] query = model.query();
        float[] output = new float[Synthetic.Q_ROW];
        var _ = model.step(stream, layer, TOKENS, query, output);
        float[] exact = model.exact(layer, TOKENS + 1, query);
        assertThat(Synthetic.relativeError(output, exact)).isLessThan(.5);
      }
    }
  }

  /** With as many bytes as the refusal names, the session opens, is planned and decodes. */
  @Test
  void aSessionWhoseBytesAreTooFewForAnyPlanIsRefusedWhenItIsOpened() {
    SessionOptions options = SessionOptions.of(Synthetic.geometry(), TOKENS + 100);
    SessionOptions byHand =
        new SessionOptions(
            Synthetic.geometry(),
            TOKENS + 100,
            0,
            Optional.of(SessionIT.plan(HeadClass.HEAD_CLASS_DENSE, 0)));
    for (SessionOptions each : List.of(options, byHand)) {
      Matcher refusal = refusal(TOO_FEW, () -> client.open(each.withDeviceBytesMax(1000)));
      assertThat(refusal.group(1)).isEqualTo("1000");
      long need = Long.parseLong(refusal.group(2));
      requireNothingLeft();
      Matcher still = refusal(TOO_FEW, () -> client.open(each.withDeviceBytesMax(need - 1)));
      assertThat(still.group(2)).isEqualTo(Long.toString(need));
      requireNothingLeft();
      KvSession session = client.open(each.withDeviceBytesMax(need));
      requireDecodes(session);
      assertThat(services.worker().deviceBytesUsed()).isBetween(1L, need);
      session.close();
      requireNothingLeft();
    }
  }

  /** The method has no codes to stream: what it takes is known when its prompt is. */
  @Test
  void aTailorKvSessionHoldsWhatItsPlanSaysOrIsRefused() {
    Synthetic model = new Synthetic(6, TOKENS);
    SessionOptions options =
        SessionOptions.of(Synthetic.geometry(), TOKENS + 100).withMode(PlanMode.PLAN_MODE_TAILORKV);
    try (KvSession session = client.open(options.withDeviceBytesMax(50_000))) {
      Matcher refusal = refusal(TAILOR_TOO_FEW, () -> model.prefill(session, TOKENS));
      assertThat(refusal.group(1)).isEqualTo("50000");
      assertThat(services.worker().deviceBytesUsed()).isZero();
    }
    try (KvSession session = client.open(options.withDeviceBytesMax(250_000))) {
      PrefillResponse finished = model.prefill(session, TOKENS);
      long planned = finished.getPlan().getDeviceBytes();
      assertThat(planned).isBetween(200_000L, 250_000L);
      assertThat(finished.getBytes().getDevice()).isEqualTo(planned);
      assertThat(services.worker().deviceBytesUsed()).isEqualTo(planned);
    }
    requireNothingLeft();
  }

  @Test
  void aSessionThatTheDeviceHasNoRoomForIsRefusedAndTheOthersGoOn() {
    SessionOptions options = SessionOptions.of(Synthetic.geometry(), TOKENS + 100);
    List<KvSession> open = new ArrayList<>();
    Matcher refusal = null;
    while (refusal == null) {
      long before = services.worker().deviceBytesUsed();
      try {
        open.add(client.open(options));
      } catch (KvtierException e) {
        refusal =
            refusal(
                FULL,
                () -> {
                  throw e;
                });
        assertThat(services.worker().deviceBytesUsed()).isEqualTo(before);
      }
    }
    long used = Long.parseLong(refusal.group(1));
    long max = Long.parseLong(refusal.group(2));
    long need = Long.parseLong(refusal.group(3));
    assertThat(max).isEqualTo(DEVICE_BYTES);
    assertThat(used + need).isGreaterThan(max);
    assertThat(client.list())
        .extracting(Session::getSessionId)
        .containsExactlyElementsOf(
            open.stream().map(session -> session.info().getSessionId()).toList());
    for (int i = 0; i < 5; i++) {
      open.removeFirst().close();
    }
    requireDecodes(open.getFirst());
    open.add(client.open(options));
    open.forEach(KvSession::close);
    requireNothingLeft();
  }

  /** The worker with fewer sessions comes first, but the other one has the room. */
  @Test
  void anotherWorkerTakesASessionThatOneHasNoRoomFor() {
    SessionOptions options = SessionOptions.of(Synthetic.geometry(), TOKENS + 100);
    List<KvSession> open = new ArrayList<>();
    GpuWorkerConfig large =
        GpuWorkerConfig.of(services.coordinator().target(), "worker-2")
            .withDeviceBytesMax(4 * DEVICE_BYTES);
    try (GpuWorker second = GpuWorker.start(large)) {
      long onSecond = 0;
      while (onSecond <= open.size() / 2 + 2) {
        open.add(client.open(options));
        onSecond =
            open.stream()
                .filter(session -> session.info().getWorkerTarget().equals(second.target()))
                .count();
      }
      assertThat(services.worker().deviceBytesUsed()).isGreaterThan(DEVICE_BYTES / 2);
      open.forEach(KvSession::close);
    }
    requireNothingLeft();
  }
}
