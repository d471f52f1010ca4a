package io.kvtier.gpuworker.device;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.attention.ReferenceAttention;
import io.kvtier.gpuworker.core.HeadPolicy;
import java.util.List;
import java.util.SplittableRandom;
import java.util.function.BiFunction;

/** What one query gave, of a layer or of the scalar oracle. */
final class Attended {
  /** {@code [qHeads][headDim]}. */
  final float[] output;

  /** {@code [qHeads]}. */
  final float[] lse;

  private Attended(LayerShape shape) {
    output = new float[shape.qHeads() * shape.headDim()];
    lse = new float[shape.qHeads()];
  }

  /** Nothing yet. */
  static Attended none(LayerShape shape) {
    return new Attended(shape);
  }

  /** One query of the layer, with the rows as the pages have them. */
  static Attended by(LayerFixture fixture, List<HeadPolicy> policies, float[] query) {
    return by(fixture, policies, query, fixture::rows, 1);
  }

  /**
   * One query of the layer.
   *
   * @param rows gives the chosen tokens' rows of a head
   * @param seed of the order in which they come
   */
  static Attended by(
      LayerFixture fixture,
      List<HeadPolicy> policies,
      float[] query,
      BiFunction<LayerPass, Integer, DeviceSlot> rows,
      long seed) {
    LayerPass pass = fixture.layer.newPass(policies);
    Attended attended = new Attended(fixture.shape);
    pass.choose(query, 0, new float[0], new float[0], 0);
    fixture.giveAll(pass, rows, seed);
    pass.finish(attended.output, 0, attended.lse, 0);
    return attended;
  }

  /**
   * One query by the oracle.
   *
   * @param keys {@code [tokens][kvHeads][headDim]}; {@code values} likewise
   */
  static Attended byOracle(LayerFixture fixture, float[] query, float[] keys, float[] values) {
    LayerShape shape = fixture.shape;
    Attended expected = new Attended(shape);
    for (int q = 0; q < shape.qHeads(); q++) {
      int headDim = shape.headDim();
      expected.lse[q] =
          (float)
              ReferenceAttention.attend(
                  query,
                  q * headDim,
                  keys,
                  values,
                  q / shape.group() * headDim,
                  shape.rowLength(),
                  fixture.tokens,
                  headDim,
                  expected.output,
                  q * headDim);
    }
    return expected;
  }

  /** Holds a query of the layer to the oracle over the rows that the pages decode to. */
  static void requireOracle(
      LayerFixture fixture, List<HeadPolicy> policies, float[] query, double tolerance) {
    Attended actual = by(fixture, policies, query);
    Attended expected = byOracle(fixture, query, fixture.decoded(true), fixture.decoded(false));
    assertThat(relativeError(actual.output, expected.output)).isLessThan(tolerance);
    for (int q = 0; q < expected.lse.length; q++) {
      assertThat(actual.lse[q]).isCloseTo(expected.lse[q], within(1e-3f));
    }
  }

  /** A random query of every head. */
  static float[] query(LayerShape shape, long seed) {
    return LayerFixture.gaussian(new SplittableRandom(seed), shape.qHeads() * shape.headDim(), 1.2);
  }

  static double relativeError(float[] actual, float[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += Math.pow(actual[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
  }
}
