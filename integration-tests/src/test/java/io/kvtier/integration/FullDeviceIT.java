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
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Sessions without bounds of their own on a device that has less than their plans would take: hot
 * sets give way, heads hold less, and every session goes on.
 */
@Timeout(240)
class FullDeviceIT {
  private static final int SESSIONS = 64;
  private static final int TOKENS = 3000;
  private static final int STEPS = 70;

  /**
   * Keys and values are noise: what a sketch leaves out is missed. A wrong output is off by 1.4.
   */
  private static final double ERROR_MAX = .5;

  private static AllInOne services(long deviceBytes) {
    return AllInOne.start(
        CoordinatorConfig.defaults(),
        new CacheTierConfig(EndpointConfig.loopback(), 512L << 20, Optional.empty()),
        deviceBytes);
  }

  /** What a session holds on the device after some steps. */
  private static long decode(KvSession session, Synthetic model, int tokens, int steps) {
    long held = 0;
    try (DecodeStream stream = session.decode()) {
      for (int position = tokens; position < tokens + steps; position++) {
        for (int layer = 0; layer < LAYERS; layer++) {
          float[] query = model.query();
          float[] output = new float[Q_ROW];
          DecodeResponse response = model.step(stream, layer, position, query, output);
          held = response.getBytes().getDevice();
          if (position % 8 == 0) {
            float[] exact = model.exact(layer, position + 1, query);
            assertThat(Synthetic.relativeError(output, exact)).isLessThan(ERROR_MAX);
          }
        }
      }
    }
    return held;
  }

  /** What a plan of this load takes where the device has room for it. */
  private static long unhinderedPlanBytes() {
    try (AllInOne services = services(64L << 20);
        KvtierClient client = KvtierClient.connect(services.coordinator().target());
        KvSession session = client.open(SessionOptions.of(Synthetic.geometry(), TOKENS + STEPS))) {
      return new Synthetic(TOKENS, TOKENS).prefill(session, TOKENS).getPlan().getDeviceBytes();
    }
  }

  private void requireAllDecode(boolean openedFirst) throws Exception {
    long planBytes = unhinderedPlanBytes();
    long deviceBytes = SESSIONS * planBytes * 6 / 10;
    SessionOptions options = SessionOptions.of(Synthetic.geometry(), TOKENS + STEPS);
    try (AllInOne services = services(deviceBytes);
        KvtierClient client = KvtierClient.connect(services.coordinator().target())) {
      Synthetic model = new Synthetic(TOKENS, TOKENS + STEPS);
      List<KvSession> sessions = new ArrayList<>();
      for (int i = 0; openedFirst && i < SESSIONS; i++) {
        sessions.add(client.open(options));
      }
      long[] resident = new long[SESSIONS];
      for (int i = 0; i < SESSIONS; i++) {
        if (!openedFirst) {
          sessions.add(client.open(options));
        }
        Plan plan = model.prefill(sessions.get(i), TOKENS).getPlan();
        resident[i] = plan.getHeadsList().stream().mapToLong(HeadPlan::getDeviceBytes).sum();
      }
      long[] held = new long[SESSIONS];
      try (ExecutorService threads = Executors.newFixedThreadPool(8)) {
        List<Future<Long>> decoded = new ArrayList<>();
        for (KvSession session : sessions) {
          decoded.add(
              threads.submit(
                  () -> decode(session, new Synthetic(TOKENS, TOKENS + STEPS), TOKENS, STEPS)));
        }
        for (int i = 0; i < SESSIONS; i++) {
          held[i] = decoded.get(i).get();
        }
      }
      System.out.printf(
          "%d sessions of %,d planned bytes on %,d: %,d used; planned for heads %s, held %s%n",
          SESSIONS,
          planBytes,
          deviceBytes,
          services.worker().deviceBytesUsed(),
          Arrays.toString(resident),
          Arrays.toString(held));
      if (!openedFirst) {
        assertThat(demotions(services)).isPositive();
      }
      long[] sorted = Arrays.stream(resident).sorted().toArray();
      assertThat(sorted[0]).isGreaterThanOrEqualTo(sorted[SESSIONS / 2] / 4);
      assertThat(services.worker().deviceBytesUsed()).isBetween(deviceBytes * 8 / 10, deviceBytes);
      sessions.forEach(KvSession::close);
      assertThat(services.worker().deviceBytesUsed()).isZero();
    }
  }

  @Test
  void sessionsThatAreAllOpenBeforeTheyArePlannedDecode() throws Exception {
    requireAllDecode(true);
  }

  /** Who came first gives up heads. */
  @Test
  void sessionsThatComeOneAfterTheOtherDecode() throws Exception {
    requireAllDecode(false);
  }

  /** Sketches of two planes take .61 MB of 7,000 tokens and 1.23 MB of 14,000, exact rows .27. */
  @ParameterizedTest
  @CsvSource({
    "7000, 1048576",
    "7000, 1200000",
    "7000, 1400000",
    "7000, 1600000",
    "14000, 1048576",
    "14000, 1200000"
  })
  void aSessionOnADeviceSmallerThanItsPlanDecodes(int tokens, long deviceBytes) {
    try (AllInOne services = services(deviceBytes);
        KvtierClient client = KvtierClient.connect(services.coordinator().target());
        KvSession session =
            client.open(SessionOptions.of(Synthetic.geometry(), tokens + 2 * STEPS))) {
      Synthetic model = new Synthetic(tokens, tokens + STEPS);
      Plan plan = model.prefill(session, tokens).getPlan();
      assertThat(plan.getDeviceBytes()).isLessThanOrEqualTo(deviceBytes);
      long held = decode(session, model, tokens, STEPS);
      System.out.printf("%,d tokens on %,d bytes: %,d held%n", tokens, deviceBytes, held);
      assertThat(services.worker().deviceBytesUsed()).isLessThanOrEqualTo(deviceBytes);
    }
  }

  /** Heads that came to hold less than planned, as the worker's page tells them. */
  private static double demotions(AllInOne services) throws Exception {
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(services.worker().opsUrl() + "/metrics")).build();
    try (HttpClient http = HttpClient.newHttpClient()) {
      return http.send(request, HttpResponse.BodyHandlers.ofLines())
          .body()
          .filter(line -> line.startsWith("kvtier_worker_demotions_total "))
          .mapToDouble(line -> Double.parseDouble(line.substring(line.indexOf(' '))))
          .findFirst()
          .orElseThrow();
    }
  }
}
