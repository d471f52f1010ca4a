package io.kvtier.coordinator.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.KvtierException;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class ResidualCurveTest {
  @Test
  void isLinearBetweenItsPointsAndItsEnds() {
    ResidualCurve curve = curve(1000, 100, 0.5f, 200, 0.25f);

    assertThat(curve.residualAt(0)).isEqualTo(1);
    assertThat(curve.residualAt(50)).isEqualTo(0.75, within(1e-12));
    assertThat(curve.residualAt(100)).isEqualTo(0.5, within(1e-12));
    assertThat(curve.residualAt(150)).isEqualTo(0.375, within(1e-12));
    assertThat(curve.residualAt(600)).isEqualTo(0.125, within(1e-12));
    assertThat(curve.residualAt(1000)).isZero();
    assertThat(curve.residualAt(5000)).isZero();
    assertThat(curve.tokensFor(0.5)).isEqualTo(100);
    assertThat(curve.tokensFor(0.375)).isEqualTo(150);
    assertThat(curve.tokensFor(0.125)).isEqualTo(600);
  }

  @Test
  void pointsBeyondTheContextAreLeftOut() {
    ResidualCurve curve = curve(50, 10, 0.5f, 50, 0.1f, 4096, 0.05f);

    assertThat(curve.residualAt(50)).isZero();
    assertThat(curve.tokensFor(0.25)).isEqualTo(30);
  }

  @Test
  void aRiseIsFlattened() {
    ResidualCurve curve = curve(100, 10, 0.2f, 20, 0.3f);

    assertThat(curve.residualAt(15)).isEqualTo(0.2, within(1e-6));
    assertThat(curve.residualAt(20)).isEqualTo(0.2, within(1e-6));
  }

  /** The needed tokens reach the target and one fewer do not. */
  @Test
  void theNeededTokensAreTheFewest() {
    long seed = System.nanoTime();
    System.out.println("ResidualCurveTest seed " + seed);
    Random random = new Random(seed);
    for (int round = 0; round < 2_000; round++) {
      int tokens = 1 + random.nextInt(100_000);
      ResidualCurve curve = PlanSamples.curve(random, tokens);
      double target = 0.001 + 0.9 * random.nextDouble();
      int needed = curve.tokensFor(target);

      assertThat(needed).isBetween(1, tokens);
      assertThat(curve.residualAt(needed)).isLessThanOrEqualTo(target + 1e-9);
      assertThat(curve.residualAt(needed - 1)).isGreaterThan(target - 1e-9);
    }
  }

  @Test
  void pointsOutOfTheirBoundsAreRefused() {
    assertThatThrownBy(() -> curve(100)).isInstanceOf(KvtierException.class);
    assertThatThrownBy(() -> ResidualCurve.of("c", new int[33], new float[33], 100))
        .hasMessage("points of c is 33; it must be 1..32");
    assertThatThrownBy(() -> curve(100, 0, 0.5f)).hasMessageContaining("k of c[0] is 0");
    assertThatThrownBy(() -> curve(100, 9, 0.5f, 9, 0.4f))
        .hasMessage("k of c[1] is 9; it must be 10..1048576");
    assertThatThrownBy(() -> curve(100, -1, 0.5f)).hasMessageContaining("4294967295");
    for (float wrong : new float[] {Float.NaN, -0.01f, 1.01f, Float.POSITIVE_INFINITY}) {
      assertThatThrownBy(() -> curve(100, 5, wrong))
          .hasMessage("residual of c[0] is " + wrong + "; it must be 0..1");
    }
  }

  private static ResidualCurve curve(int tokens, Number... points) {
    int[] k = new int[points.length / 2];
    float[] residual = new float[k.length];
    for (int i = 0; i < k.length; i++) {
      k[i] = points[2 * i].intValue();
      residual[i] = points[2 * i + 1].floatValue();
    }
    return ResidualCurve.of("c", k, residual, tokens);
  }
}
