package io.kvtier.deploy.demo;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.Prefill;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.AheadUse;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.nio.file.Path;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The demo engine tells kvtier all that an engine can: its last queries, and hints. */
@Timeout(120)
class DemoEngineIT {
  private static final int TOKENS = 600;
  private static final long MEMORY = 256L << 20;

  /** Whatever is fetched ahead then is fetched for a hint. */
  private static Plan nothingAheadButHints(Plan made) {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64).setHotSetBytes(1 << 20);
    for (HeadPlan head : made.getHeadsList()) {
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(head.getLayer())
              .setKvHead(head.getKvHead())
              .setHeadClass(HeadClass.HEAD_CLASS_SPARSE)
              .setDominantTokensMax(128)
              .setResidualMass(.01f)
              .setAhead(AheadUse.AHEAD_USE_NOTHING));
    }
    return plan.build();
  }

  @Test
  void plansAreMadeFromItsQueriesAndRowsFetchedForItsHints() throws Exception {
    LlamaModel model =
        LlamaModel.load(Path.of(System.getProperty("kvtier.home"), "deploy", "model"));
    CacheTierConfig tier = new CacheTierConfig(EndpointConfig.loopback(), MEMORY, Optional.empty());
    try (Decoder decoder = new Decoder(model);
        AllInOne services = AllInOne.start(CoordinatorConfig.defaults(), tier, MEMORY);
        KvtierClient client = KvtierClient.connect(services.coordinator().target())) {
      FullKvCache cache = new FullKvCache(model.config());
      int[] prompt = new int[TOKENS];
      for (int i = 0; i < TOKENS; i++) {
        prompt[i] = 300 + i * 37 % 900;
      }
      Prefill prefill =
          decoder.prefill(cache, prompt, PromptStream.QUERY_WINDOW, (done, total) -> {});
      SessionOptions options = SessionOptions.of(PromptStream.geometry(model), TOKENS + 10);
      Plan made;
      try (KvSession session = client.open(options)) {
        made = PromptStream.send(session, cache, prefill).getPlan();
      }
      assertThat(made.getProfileSessions()).as("its own").isZero();
      assertThat(made.getHeadsList())
          .allSatisfy(head -> assertThat(head.getReason()).contains("of 600 tokens leave 1 %"));
      SessionOptions byHand =
          new SessionOptions(
              options.geometry(),
              TOKENS + 10,
              0,
              Optional.of(nothingAheadButHints(made)),
              PlanMode.PLAN_MODE_KVTIER);
      try (KvSession session = client.open(byHand)) {
        var _ = PromptStream.send(session, cache, prefill);
        Tally tally = new Tally("hints", TOKENS);
        try (DecodeStream stream = session.decode()) {
          KvtierBackend backend = new KvtierBackend(stream, model.config());
          for (int i = 0; i < 4; i++) {
            assertThat(decoder.step(backend, TOKENS + i, new int[] {400 + i})).isNotEmpty();
          }
          backend.compare(cache, tally);
        }
        assertThat(tally.row(false).sectionsPrefetched()).isPositive();
      }
    }
  }
}
