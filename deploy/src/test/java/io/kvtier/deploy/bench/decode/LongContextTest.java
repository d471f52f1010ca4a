package io.kvtier.deploy.bench.decode;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.client.PagesClient;
import io.kvtier.deploy.bench.TierProcess;
import io.kvtier.gpuworker.session.StepResult;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.Plan;
import java.time.Duration;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** What a token of a long context moves: counted, so that no machine is too slow for it. */
class LongContextTest {
  private static final int TOKENS = 16 << 10;
  private static final int LAYERS = 2;
  private static final int MODEL_LAYERS = 32;
  private static final int STEPS = 16;
  private static final double BUDGET = 1 / 8.;
  private static final Closing STARTED = new Closing();

  @SuppressWarnings("NullAway.Init") // Started before all tests.
  private static PagesClient tier;

  @BeforeAll
  static void start() throws Exception {
    TierProcess process = STARTED.add(TierProcess.start(TierProcess.directory(STARTED), 512 << 20));
    tier = STARTED.add(new PagesClient(process.target(true), Duration.ofSeconds(30)));
  }

  @AfterAll
  static void stop() {
    STARTED.close();
  }

  /** Of one layer's steps. */
  private static final class Moved {
    private long bytes;
    private long chosen;
    private long found;

    void add(StepResult result) {
      bytes += result.bytesFetched();
      chosen += result.selected();
      found += result.hit();
    }

    double share() {
      return (double) found / chosen;
    }
  }

  private static Moved[] decode(boolean hints, UnaryOperator<Plan> change) {
    Moved[] moved = {new Moved(), new Moved()};
    try (LongSession session =
        new LongSession(
            LAYERS,
            TOKENS,
            2 * STEPS,
            BUDGET,
            SpreadAttention.STEP_COSINE,
            change,
            tier,
            (done, total, what) -> {})) {
      session.decode(STEPS, hints, (done, total, what) -> {}, (layer, result, ns) -> {});
      session.decode(
          STEPS, hints, (done, total, what) -> {}, (layer, result, ns) -> moved[layer].add(result));
    }
    return moved;
  }

  @Test
  void aTokenMovesLittleAndTheHotSetSavesMuchOfIt() {
    Moved[] with = decode(false, UnaryOperator.identity());
    Moved[] without = decode(false, plan -> plan.toBuilder().setHotSetBytes(0).build());
    long bytes = with[0].bytes + with[1].bytes;
    assertThat((double) bytes / STEPS / LAYERS * MODEL_LAYERS).isLessThan(16e6);
    assertThat(with[0].share()).isGreaterThan(.5);
    assertThat(without[0].share()).isLessThan(.1);
    assertThat(bytes).isLessThan((without[0].bytes + without[1].bytes) * 7 / 10);
  }

  @Test
  void whatAHintChoosesIsFoundOrOnItsWay() {
    Moved[] hinted = decode(true, UnaryOperator.identity());
    assertThat(hinted[1].share()).isGreaterThan(hinted[0].share() + .1);
  }
}
