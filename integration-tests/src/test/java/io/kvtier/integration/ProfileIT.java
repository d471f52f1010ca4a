package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.LAYERS;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.Kvtier;
import io.kvtier.deploy.demo.PromptStream;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.ModelProfile;
import io.kvtier.v1.Plan;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Profiles from the workers' curves to later sessions' plans, over real gRPC. */
class ProfileIT {
  private final AllInOne service =
      AllInOne.start(
          CoordinatorConfig.defaults(),
          new CacheTierConfig(EndpointConfig.loopback(), 64L << 20, Optional.empty()),
          64L << 20);
  private final KvtierClient client = KvtierClient.connect(service.coordinator().target());

  @AfterEach
  void stop() {
    client.close();
    service.close();
  }

  private Plan plan(Synthetic model, int tokens, int window) {
    try (KvSession session = client.open(SessionOptions.of(Synthetic.geometry(), tokens));
        PrefillStream stream = session.prefill()) {
      for (int layer = 0; layer < LAYERS; layer++) {
        stream.chunk(
            layer, 0, tokens, model.keys(layer, 0, tokens), model.values(layer, 0, tokens));
        if (window > 0) {
          float[] queries = new float[window * Synthetic.Q_ROW];
          for (int i = 0; i < window; i++) {
            System.arraycopy(model.query(), 0, queries, i * Synthetic.Q_ROW, Synthetic.Q_ROW);
          }
          stream.queries(layer, window, queries);
        }
      }
      return stream.finish(tokens).getPlan();
    }
  }

  @Test
  void aSessionWithoutQueriesStartsFromWhatOthersHaveShown() {
    Synthetic model = new Synthetic(31, 3000);
    assertThat(plan(model, 2000, 0).getHeadsList())
        .extracting(HeadPlan::getReason)
        .allMatch(reason -> reason.startsWith("no profile"));
    assertThat(plan(model, 2000, 4).getProfileSessions()).isZero();
    assertThat(client.profiles(Synthetic.geometry().getModelFingerprint(), 0)).isEmpty();

    Plan told = plan(model, 2000, 32);
    assertThat(told.getProfileSessions()).isZero();
    Plan quiet = plan(model, 2000, 0);
    assertThat(quiet.getProfileSessions()).isEqualTo(1);
    for (int head = 0; head < told.getHeadsCount(); head++) {
      int own = told.getHeads(head).getDominantTokensMax();
      assertThat(quiet.getHeads(head).getHeadClass()).isEqualTo(told.getHeads(head).getHeadClass());
      // The points in between are read off lines above the curve.
      assertThat(quiet.getHeads(head).getDominantTokensMax()).isBetween(own, own + own / 4);
      assertThat(quiet.getHeads(head).getReason()).startsWith("profile of 1 session, ");
    }
    assertThat(plan(model, 2000, 15).getProfileSessions()).isEqualTo(1);
    assertThat(plan(model, 3000, 16).getProfileSessions()).isZero();
    assertThat(client.profiles(Synthetic.geometry().getModelFingerprint(), 3000))
        .singleElement()
        .extracting(ModelProfile::getSessions, ModelProfile::getHeadsCount)
        .containsExactly(2, told.getHeadsCount());
  }

  @Test
  void thePlanCommandTellsWhatTheCoordinatorKnows(@TempDir Path directory) throws Exception {
    Path home = Path.of(System.getProperty("kvtier.home"), "deploy", "model");
    String endpoint = service.coordinator().target();
    Path json = directory.resolve("plan.json");
    String[] command = {
      "plan",
      "--model",
      home.toString(),
      "--context",
      "4k",
      "--endpoint",
      endpoint,
      "--json",
      json.toString()
    };
    assertThat(Kvtier.run(command)).isEqualTo(1);
    Geometry geometry = PromptStream.geometry(LlamaModel.load(home));
    SplittableRandom random = new SplittableRandom(5);
    try (KvSession session = client.open(SessionOptions.of(geometry, 1024));
        PrefillStream stream = session.prefill()) {
      int row = geometry.getKvHeads() * geometry.getHeadDim();
      int queryRow = geometry.getQHeads() * geometry.getHeadDim();
      for (int layer = 0; layer < geometry.getLayers(); layer++) {
        stream.chunk(layer, 0, 1024, gaussian(random, 1024 * row), gaussian(random, 1024 * row));
        stream.queries(layer, 32, gaussian(random, 32 * queryRow));
      }
      assertThat(stream.finish(1024).getPlan().getProfileSessions()).isZero();
    }
    assertThat(Kvtier.run(command)).isZero();
    assertThat(Files.readString(json)).contains("profile of 1 session, ", "of 4,096 tokens");
  }

  private static float[] gaussian(SplittableRandom random, int length) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    return x;
  }
}
