package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static io.kvtier.integration.Synthetic.relativeError;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowable;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import io.grpc.ManagedChannel;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.reflection.v1.ServerReflectionGrpc;
import io.grpc.reflection.v1.ServerReflectionRequest;
import io.grpc.reflection.v1.ServerReflectionResponse;
import io.grpc.reflection.v1.ServiceResponse;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.rpc.Channels;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.Plan;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Coordinator, tier and worker as processes of their own, and what the death of one costs. */
@Timeout(value = 150, unit = TimeUnit.SECONDS)
class ProcessesIT {
  private static final int TOKENS = 2000;
  private static final int TOKENS_MAX = 2100;
  private static final int STEPS = 10;
  private static final double ERROR_MAX = .35;
  private static final Duration TIMEOUT = Duration.ofSeconds(15);
  private static final Duration RECOVERY_MAX = Duration.ofSeconds(40);

  @TempDir private Path data;

  private final List<AutoCloseable> started = new ArrayList<>();
  private ServiceProcess coordinator;
  private ServiceProcess tier;
  private ServiceProcess worker;
  private KvtierClient client;

  @BeforeEach
  void start() throws Exception {
    coordinator = start("coordinator");
    tier = startTier("tier-1", data.resolve("tier-1"));
    worker = startWorker("worker-1");
    client = KvtierClient.connect(coordinator.target, TIMEOUT);
    started.add(client);
  }

  @AfterEach
  void endAll() throws Exception {
    Exception failure = null;
    for (AutoCloseable each : started.reversed()) {
      try {
        each.close();
      } catch (Exception e) {
        failure = e;
      }
    }
    if (failure != null) {
      throw failure;
    }
  }

  private ServiceProcess start(String... arguments) throws Exception {
    ServiceProcess process = new ServiceProcess(arguments);
    started.add(process);
    return process;
  }

  private ServiceProcess startTier(String nodeId, Path directory, String... more) throws Exception {
    List<String> arguments = new ArrayList<>();
    // A killed tier's files would still be read, rightly: here a dead tier is to be noticed.
    arguments.addAll(List.of("cache-tier", "--no-files", "--coordinator=" + coordinator.target));
    arguments.addAll(List.of("--node-id=" + nodeId, "--tier-bytes=64m", "--data=" + directory));
    arguments.addAll(List.of(more));
    return start(arguments.toArray(String[]::new));
  }

  private ServiceProcess startWorker(String nodeId) throws Exception {
    return start(
        "gpu-worker",
        "--no-rehearsal",
        "--coordinator=" + coordinator.target,
        "--node-id=" + nodeId,
        "--device-bytes=64m");
  }

  /**
   * Every sparse head fetches what it attends to: the hot set holds next to nothing. Failures come
   * as they are: nothing is kept to go on by itself.
   */
  private KvSession openSparse() {
    Plan plan = Synthetic.plan(HeadClass.HEAD_CLASS_SPARSE, 1024, 1 << 12);
    return client.open(
        new SessionOptions(Synthetic.geometry(), TOKENS_MAX, 0, Optional.of(plan))
            .withReplayBytesMax(0));
  }

  /** Decodes one token of all layers; the mean error against the oracle. */
  private static double step(Synthetic model, KvSession session, int position) {
    try (DecodeStream stream = session.decode()) {
      double error = 0;
      for (int layer = 0; layer < LAYERS; layer++) {
        error += layerStep(model, stream, layer, position);
      }
      return error / LAYERS;
    }
  }

  private static double layerStep(Synthetic model, DecodeStream stream, int layer, int position) {
    float[] query = model.query();
    float[] output = new float[Q_ROW];
    DecodeResponse response = model.step(stream, layer, position, query, output);
    assertThat(response.getPosition()).isEqualTo(position);
    return relativeError(output, model.exact(layer, position + 1, query));
  }

  /** Decodes some tokens; requires that their mean error is small. */
  private static void requireSteps(Synthetic model, KvSession session, int from, int steps) {
    double error = 0;
    for (int i = 0; i < steps; i++) {
      error += step(model, session, from + i);
    }
    assertThat(error / steps).isLessThan(ERROR_MAX);
  }

  private void requireThatANewSessionWorks(long seed) {
    Synthetic model = new Synthetic(seed, TOKENS_MAX);
    try (KvSession session = openSparse()) {
      model.prefill(session, TOKENS);
      requireSteps(model, session, TOKENS, STEPS);
    }
  }

  @Test
  void sessionsWorkAcrossProcessesAndEachServiceTellsOfItself() throws Exception {
    requireThatANewSessionWorks(1);
    assertThat(client.list()).isEmpty();
    requireTellsOfItself(coordinator, "kvtier.v1.Sessions", "kvtier.v1.Cluster");
    requireTellsOfItself(tier, "kvtier.v1.Pages");
    requireTellsOfItself(worker, "kvtier.v1.Attention");
  }

  private static void requireTellsOfItself(ServiceProcess process, String... services)
      throws Exception {
    ManagedChannel channel = Channels.open(process.target);
    try {
      HealthGrpc.HealthBlockingStub health =
          HealthGrpc.newBlockingStub(channel).withDeadlineAfter(10, TimeUnit.SECONDS);
      assertThat(health.check(HealthCheckRequest.getDefaultInstance()).getStatus())
          .isEqualTo(ServingStatus.SERVING);
      for (String service : services) {
        HealthCheckRequest request = HealthCheckRequest.newBuilder().setService(service).build();
        assertThat(health.check(request).getStatus()).isEqualTo(ServingStatus.SERVING);
      }
      ServerReflectionRequest list =
          ServerReflectionRequest.newBuilder().setListServices("").build();
      List<ServerReflectionResponse> listed =
          Loopback.exchange(
              ServerReflectionGrpc.newBlockingV2Stub(channel)
                  .withDeadlineAfter(10, TimeUnit.SECONDS)
                  .serverReflectionInfo(),
              List.of(list));
      assertThat(listed.getFirst().getListServicesResponse().getServiceList())
          .extracting(ServiceResponse::getName)
          .contains(services)
          .contains("grpc.health.v1.Health");
    } finally {
      Channels.close(channel);
    }
    assertThat(status(process.opsUrl + "/metrics")).isEqualTo(200);
    assertThat(status(process.opsUrl + "/health")).isEqualTo(200);
  }

  private static int status(String url) throws Exception {
    try (HttpClient http = HttpClient.newHttpClient()) {
      HttpRequest request =
          HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(10)).build();
      return http.send(request, HttpResponse.BodyHandlers.discarding()).statusCode();
    }
  }

  /** The call fails with UNAVAILABLE and a message, within the client's time-out. */
  private static void requireUnavailable(ThrowingCallable call) {
    long begun = System.nanoTime();
    KvtierException thrown = catchThrowableOfType(KvtierException.class, call);
    Duration took = Duration.ofNanos(System.nanoTime() - begun);
    assertThat(thrown).as("accepted").isNotNull();
    assertThat(thrown.code()).as("%s", thrown).isEqualTo(Code.UNAVAILABLE);
    assertThat(thrown.getMessage()).isNotBlank();
    assertThat(took).isLessThan(TIMEOUT);
  }

  @Test
  void aKilledWorkerIsUnavailableAndANewOneTakesOver() throws Exception {
    Synthetic model = new Synthetic(2, TOKENS_MAX);
    KvSession session = openSparse();
    model.prefill(session, TOKENS);
    DecodeStream decode = session.decode();
    layerStep(model, decode, 0, TOKENS);
    worker.kill();
    requireUnavailable(() -> layerStep(model, decode, 1, TOKENS));
    decode.close();
    requireUnavailable(() -> step(model, session, TOKENS + 1));
    requireUnavailable(() -> model.prefill(session, TOKENS));
    requireUnavailable(() -> session.load(0, 0, 1));
    requireUnavailable(() -> session.gather(0, model.query(), 10));
    requireUnavailable(session::fork);
    requireUnavailable(() -> client.open(SessionOptions.of(Synthetic.geometry(), 100)));
    worker = startWorker("worker-2");
    // A live worker is there: no open may go to the dead one.
    for (int i = 0; i < 3; i++) {
      requireThatANewSessionWorks(3 + i);
    }
    // What died with its worker can be closed, or is refused with a reason; it hangs nothing.
    Throwable refusal = catchThrowable(session::close);
    if (refusal != null) {
      requireUnavailable(() -> {
        throw refusal;
      });
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void aKilledTierLeavesTheStepToBeSentAgain(boolean sameAddress) throws Exception {
    Synthetic model = new Synthetic(7, TOKENS_MAX);
    try (KvSession session = openSparse()) {
      model.prefill(session, TOKENS);
      step(model, session, TOKENS);
      tier.kill();
      for (int i = 0; i < 2; i++) {
        requireUnavailable(() -> step(model, session, TOKENS + 1));
      }
      requireTokens(model, session, TOKENS + 1);
      String port = tier.target.substring(tier.target.lastIndexOf(':') + 1);
      tier = startTier("tier-1", data.resolve("tier-1"), "--port=" + (sameAddress ? port : "0"));
      requireEventually(() -> step(model, session, TOKENS + 1));
      requireSteps(model, session, TOKENS + 2, STEPS);
      requireThatANewSessionWorks(8);
    }
  }

  /** A step one further on is out of order, and the refusal tells the count. */
  private static void requireTokens(Synthetic model, KvSession session, int tokens) {
    KvtierException thrown =
        catchThrowableOfType(KvtierException.class, () -> step(model, session, tokens + 1));
    assertThat(thrown).isNotNull();
    assertThat(thrown.code()).as("%s", thrown).isEqualTo(Code.PRECONDITION);
    assertThat(thrown.getMessage()).contains("" + tokens, "" + (tokens + 1));
  }

  /** Sends a call again, as UNAVAILABLE allows, until it is served. */
  private static void requireEventually(Runnable call) {
    long deadlineNs = System.nanoTime() + RECOVERY_MAX.toNanos();
    while (true) {
      try {
        call.run();
        return;
      } catch (KvtierException e) {
        assertThat(e.code()).as("%s", e).isEqualTo(Code.UNAVAILABLE);
        assertThat(System.nanoTime()).as("still %s", e.getMessage()).isLessThan(deadlineNs);
      }
    }
  }

  @Test
  void aTierOfAnotherNameServesNewSessionsAfterOneWasKilled() throws Exception {
    requireThatANewSessionWorks(10);
    tier.kill();
    tier = startTier("tier-2", data.resolve("tier-2"));
    requireEventually(() -> requireThatANewSessionWorks(11));
  }
}
