package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.KV_HEADS;
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
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.NearUse;
import io.kvtier.v1.Plan;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Streamed heads through all services, fetched and attended to in the tier. */
@Timeout(120)
class NearIT {
  private static final int TOKENS = 3000;
  private static final int STEPS = 120;

  /** Steps in which a first answer may be too late, and the tier is left alone for a while. */
  private static final int WARM_UP = 40;

  private static KvSession open(KvtierClient client, NearUse use) {
    Plan plan =
        Synthetic.plan(HeadClass.HEAD_CLASS_STREAMED, 0, 0).toBuilder().setNear(use).build();
    return client.open(
        new SessionOptions(Synthetic.geometry(), TOKENS + STEPS, 0, Optional.of(plan)));
  }

  private static double difference(float[] actual, float[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += Math.pow(actual[i] - (double) expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
  }

  @Test
  void theTierAttendsAndHardlyAnythingMoves() {
    try (AllInOne services =
            AllInOne.start(
                CoordinatorConfig.defaults(),
                new CacheTierConfig(EndpointConfig.loopback(), 64L << 20, Optional.empty()),
                64L << 20);
        KvtierClient client = KvtierClient.connect(services.coordinator().target());
        KvSession near = open(client, NearUse.NEAR_USE_ALWAYS);
        KvSession fetched = open(client, NearUse.NEAR_USE_NEVER);
        KvSession measured = open(client, NearUse.NEAR_USE_UNSPECIFIED)) {
      Synthetic model = new Synthetic(31, TOKENS + STEPS);
      for (KvSession session : new KvSession[] {near, fetched, measured}) {
        assertThat(model.prefill(session, TOKENS).getPlan().getHeadsCount())
            .isEqualTo(LAYERS * KV_HEADS);
      }
      long nearBytes = 0;
      long fetchedBytes = 0;
      int nearPages = 0;
      int decided = 0;
      try (DecodeStream nearStream = near.decode();
          DecodeStream fetchedStream = fetched.decode();
          DecodeStream measuredStream = measured.decode()) {
        for (int position = TOKENS; position < TOKENS + STEPS; position++) {
          for (int layer = 0; layer < LAYERS; layer++) {
            float[] query = model.query();
            float[] actual = new float[Q_ROW];
            float[] expected = new float[Q_ROW];
            float[] chosen = new float[Q_ROW];
            DecodeResponse there = model.step(nearStream, layer, position, query, actual);
            DecodeResponse here = model.step(fetchedStream, layer, position, query, expected);
            DecodeResponse either = model.step(measuredStream, layer, position, query, chosen);
            assertThat(difference(actual, expected)).isLessThan(1e-5);
            assertThat(difference(chosen, expected)).isLessThan(1e-5);
            if (position >= TOKENS + WARM_UP) {
              nearBytes += there.getStats().getBytesFetched();
              fetchedBytes += here.getStats().getBytesFetched();
              nearPages += there.getStats().getSectionsNear();
            }
            decided += either.getStats().getSectionsNear() > 0 ? 1 : 0;
            assertThat(here.getStats().getSectionsNear()).isZero();
          }
        }
      }
      // Now and then a step fetches too, to hold the tier's answer against its pages.
      int steps = STEPS - WARM_UP;
      assertThat(nearPages).isGreaterThanOrEqualTo(steps * LAYERS * KV_HEADS * 45 * 9 / 10);
      assertThat(nearBytes).isLessThan(fetchedBytes / 10);
      System.out.printf(
          "last %d steps: near %,d bytes, fetched %,d; by measured cost %d of all %d were near%n",
          steps, nearBytes, fetchedBytes, decided, STEPS * LAYERS);
    }
  }
}
