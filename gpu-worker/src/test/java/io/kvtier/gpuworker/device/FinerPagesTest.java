package io.kvtier.gpuworker.device;

import static io.kvtier.gpuworker.device.Attended.relativeError;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import java.util.Collections;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** Pages of eight bits: the tokens that weigh most are attended to by all of them. */
class FinerPagesTest {
  private static final int TOKENS = 1000;

  /**
   * Queries like a few tokens' keys, so that these hold most of the mass, held to exact attention
   * over what was appended: four bits leave a tenth of a vector, eight a seventieth or less.
   */
  @ParameterizedTest
  @CsvSource({
    "DENSE, 128", "TWO_PLANES, 128", "ONE_PLANE, 128", "STREAMED, 128",
    "DENSE, 80", "TWO_PLANES, 80", "ONE_PLANE, 80", "STREAMED, 80"
  })
  void theHeaviestTokensAreAttendedToByAllBits(Residence residence, int headDim) {
    double four = error(Codec.ROT4, residence, headDim);
    double eight = error(Codec.ROT8, residence, headDim);
    assertThat(four).isBetween(.02, .2);
    assertThat(eight).isLessThan(four / 4);
  }

  private static double error(Codec codec, Residence residence, int headDim) {
    LayerShape shape = shape(codec, headDim);
    List<HeadPolicy> policies = Collections.nCopies(2, new HeadPolicy(residence, 64, 400, .0001f));
    double sum = 0;
    try (CpuDevice device = new CpuDevice(64 << 20)) {
      LayerFixture fixture = new LayerFixture(device, shape, TOKENS, policies, 7);
      for (int seed = 0; seed < 8; seed++) {
        float[] query = queryLikeKeys(fixture, seed);
        Attended actual = Attended.by(fixture, policies, query);
        Attended exact = Attended.byOracle(fixture, query, fixture.keys, fixture.values);
        sum += relativeError(actual.output, exact.output) / 8;
      }
    }
    return sum;
  }

  /** What comes when, rows or what four bits leave of them, changes no bit. */
  @ParameterizedTest
  @EnumSource(Residence.class)
  void theOrderInWhichThingsComeDoesNotMatter(Residence residence) {
    LayerShape shape = shape(Codec.ROT8, 64);
    List<HeadPolicy> policies = Collections.nCopies(2, new HeadPolicy(residence, 64, 400, .001f));
    try (CpuDevice device = new CpuDevice(64 << 20)) {
      LayerFixture fixture = new LayerFixture(device, shape, TOKENS, policies, 7);
      float[] query = queryLikeKeys(fixture, 3);
      Attended first = Attended.by(fixture, policies, query, fixture::rows, 1);
      for (int seed = 2; seed < 12; seed++) {
        Attended again = Attended.by(fixture, policies, query, fixture::rows, seed);
        assertThat(again.output).isEqualTo(first.output);
        assertThat(again.lse).isEqualTo(first.lse);
      }
    }
  }

  /** Likewise where many tokens are refined and whole pages come first: no block begins alike. */
  @ParameterizedTest
  @CsvSource({"TWO_PLANES", "ONE_PLANE"})
  void theOrderInWhichPagesComeDoesNotMatter(Residence residence) {
    LayerShape shape = shape(Codec.ROT8, 64);
    List<HeadPolicy> policies = Collections.nCopies(2, new HeadPolicy(residence, 400, 400, 0));
    try (CpuDevice device = new CpuDevice(64 << 20)) {
      LayerFixture fixture = new LayerFixture(device, shape, TOKENS, policies, 7);
      float[] query = LayerFixture.gaussian(new SplittableRandom(9), 4 * 64, .02);
      Attended first = Attended.by(fixture, policies, query);
      for (int cut = 64; cut < TOKENS; cut += 64) {
        LayerPass pass = fixture.layer.newPass(policies);
        Attended again = Attended.none(shape);
        pass.choose(query, 0, new float[0], new float[0], 0);
        fixture.giveInTwo(pass, cut);
        pass.finish(again.output, 0, again.lse, 0);
        assertThat(again.output).as("cut at %d", cut).isEqualTo(first.output);
      }
    }
  }

  /** No more are wanted finer than is promised, and no token that is not chosen. */
  @ParameterizedTest
  @CsvSource({"TWO_PLANES", "ONE_PLANE"})
  void aBoundedNumberOfTokensIsRefined(Residence residence) {
    LayerShape shape = shape(Codec.ROT8, 64);
    List<HeadPolicy> policies = Collections.nCopies(2, new HeadPolicy(residence, 400, 400, 0));
    try (CpuDevice device = new CpuDevice(64 << 20)) {
      LayerFixture fixture = new LayerFixture(device, shape, TOKENS, policies, 7);
      LayerPass pass = fixture.layer.newPass(policies);
      // Short queries: all tokens weigh about the same, more of them enough than may be refined.
      float[] query = new float[shape.qHeads() * shape.headDim()];
      pass.choose(query, 0, new float[0], new float[0], 0);
      for (int head = 0; head < 2; head++) {
        int refined = 0;
        for (int i = 0; i < pass.chosenCount(head); i++) {
          refined += pass.refines(head, i) ? 1 : 0;
        }
        assertThat(pass.chosenCount(head)).isEqualTo(400);
        assertThat(refined).isEqualTo(Residence.FINER_TOKENS_MAX);
      }
      pass.release();
    }
  }

  private static LayerShape shape(Codec codec, int headDim) {
    LayerShape plain = LayerFixture.shape(4, 2, headDim);
    PageLayout layout = new PageLayout(codec, codec, 2, headDim);
    return new LayerShape(
        plain.fingerprint(),
        layout,
        plain.qHeads(),
        plain.exactBytes(),
        plain.sinkTokens(),
        plain.windowTokens());
  }

  /** Each q head's query is near to some paged token's key: that one has most of its mass. */
  private static float[] queryLikeKeys(LayerFixture fixture, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    LayerShape shape = fixture.shape;
    int headDim = shape.headDim();
    float[] query = new float[shape.qHeads() * headDim];
    for (int q = 0; q < shape.qHeads(); q++) {
      int token = 64 + random.nextInt(TOKENS - 256);
      int at = token * shape.rowLength() + q / shape.group() * headDim;
      double norm = 0;
      for (int i = 0; i < headDim; i++) {
        norm += fixture.keys[at + i] * fixture.keys[at + i];
      }
      // A score of some 9 for that token; the others' are about 0.
      float scale = (float) (9 * Math.sqrt(headDim) / norm);
      for (int i = 0; i < headDim; i++) {
        query[q * headDim + i] = scale * fixture.keys[at + i];
      }
    }
    return query;
  }
}
