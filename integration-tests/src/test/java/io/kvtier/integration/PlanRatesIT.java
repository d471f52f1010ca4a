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
import io.kvtier.v1.Plan;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What a worker measures of its tiers and its device, in the plans of sessions that come later. */
@Timeout(120)
class PlanRatesIT {
  private static final int TOKENS = 2000;
  private static final int STEPS = 300;

  @Test
  void plansAreMadeByWhatTheWorkerHasMeasured() throws Exception {
    Synthetic model = new Synthetic(41, TOKENS + STEPS);
    SessionOptions options = SessionOptions.of(Synthetic.geometry(), TOKENS + STEPS);
    try (AllInOne services =
            AllInOne.start(
                CoordinatorConfig.defaults(),
                new CacheTierConfig(EndpointConfig.loopback(), 64L << 20, Optional.empty()),
                64L << 20);
        KvtierClient client = KvtierClient.connect(services.coordinator().target())) {
      Plan before;
      try (KvSession session = client.open(options)) {
        before = model.prefill(session, TOKENS).getPlan();
      }
      assertThat(before.getFetchRate()).isEqualTo(1500);
      assertThat(before.getAttendRate()).isEqualTo(8000);

      // Nothing is kept, so that every step fetches.
      Plan forgetful = before.toBuilder().setHotSetBytes(0).build();
      SessionOptions given =
          new SessionOptions(options.geometry(), options.tokensMax(), 0, Optional.of(forgetful));
      try (KvSession session = client.open(given)) {
        var _ = model.prefill(session, TOKENS);
        decode(model, session);
      }

      String page = services.worker().opsUrl();
      double fetch = OpsPage.metric(page, "kvtier_worker_rate_fetch");
      double attend = OpsPage.metric(page, "kvtier_worker_rate_attend");
      System.out.printf("fetched %.0f, attended %.0f bytes a microsecond%n", fetch, attend);
      assertThat(fetch).isPositive();
      assertThat(attend).isPositive();
      try (KvSession session = client.open(options)) {
        Plan after = model.prefill(session, TOKENS).getPlan();
        assertThat(after.getFetchRate()).isEqualTo((int) fetch);
        assertThat(after.getAttendRate()).isEqualTo((int) attend);
      }
    }
  }

  private static void decode(Synthetic model, KvSession session) {
    try (DecodeStream stream = session.decode()) {
      for (int position = TOKENS; position < TOKENS + STEPS; position++) {
        for (int layer = 0; layer < LAYERS; layer++) {
          var _ = model.step(stream, layer, position, model.query(), new float[Q_ROW]);
        }
      }
    }
  }
}
