package io.kvtier.coordinator.profile;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.PlanMode;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** Averages, scaling and bounds of profiles. */
final class ProfileTableTest {
  private static final int TOKENS = 4096;

  private final ProfileTable table = new ProfileTable(ProfileLimits.defaults());

  private static ModelKey key(int model) {
    return key(model, 1);
  }

  private static ModelKey key(int model, int layers) {
    Geometry geometry =
        Geometry.newBuilder()
            .setLayers(layers)
            .setQHeads(1)
            .setKvHeads(1)
            .setHeadDim(64)
            .setKvDtype(Dtype.DTYPE_BF16)
            .setModelFingerprint(ByteString.copyFrom(new byte[] {(byte) model}))
            .build();
    return ModelKey.of(geometry, PlanMode.PLAN_MODE_KVTIER);
  }

  /** E(k) = scale / (1 + 64 k / tokens) at k = 16, 32, ..: a curve of shares. */
  private static ResidualCurve ofShares(double scale, int tokens) {
    int points = 0;
    int[] k = new int[32];
    float[] residual = new float[32];
    for (int at = 16; at < tokens; at *= 2) {
      k[points] = at;
      residual[points++] = (float) (scale / (1 + 64.0 * at / tokens));
    }
    return ResidualCurve.of(
        "curve", Arrays.copyOf(k, points), Arrays.copyOf(residual, points), tokens);
  }

  private void merge(ModelKey key, double scale, int tokens) {
    table.merge(key, tokens, List.of(ofShares(scale, tokens)));
  }

  private double residualAt(int k, int tokens) {
    return table.at(key(1), tokens).curves().getFirst().residualAt(k);
  }

  @Test
  void theFirstSessionsCountAlikeAndTheLastOnesMost() {
    merge(key(1), .2, TOKENS);
    assertThat(residualAt(64, TOKENS)).isEqualTo(.1, within(1e-6));
    merge(key(1), .4, TOKENS);
    assertThat(residualAt(64, TOKENS)).isEqualTo(.15, within(1e-6));
    assertThat(table.at(key(1), TOKENS).sessions()).isEqualTo(2);
    for (int session = 0; session < 100; session++) {
      merge(key(1), .8, TOKENS);
    }
    assertThat(residualAt(64, TOKENS)).isEqualTo(.4, within(1e-4));
    merge(key(1), 0, TOKENS);
    assertThat(residualAt(64, TOKENS)).isEqualTo(.4 * 7 / 8, within(1e-4));
  }

  /** Sessions that did not measure it leave the overlap as it is; a snapshot keeps it. */
  @Test
  void overlapsAreAveragedOverTheSessionsThatMeasuredThem() {
    ModelKey key = key(1);
    merge(key, .2, TOKENS);
    assertThat(overlap(table)).isEqualTo(ResidualCurve.UNMEASURED);
    for (float share : new float[] {.6f, .8f}) {
      table.merge(key, TOKENS, List.of(ofShares(.2, TOKENS).withOverlap("c", share)));
      merge(key, .2, TOKENS);
    }
    assertThat(overlap(table)).isEqualTo(.7f, within(1e-6f));
    ProfileTable other = new ProfileTable(ProfileLimits.defaults());
    table.records().forEach(other::restore);
    assertThat(overlap(other)).isEqualTo(overlap(table));
    for (int session = 0; session < 100; session++) {
      other.merge(key, TOKENS, List.of(ofShares(.2, TOKENS).withOverlap("c", .1f)));
    }
    assertThat(overlap(other)).isEqualTo(.1f, within(1e-4f));
  }

  @Test
  void scoreErrorsAreAveragedLikewise() {
    ModelKey key = key(1);
    merge(key, .2, TOKENS);
    assertThat(scoreError(table)).isEqualTo(ResidualCurve.UNMEASURED);
    for (float error : new float[] {3, 5}) {
      table.merge(key, TOKENS, List.of(ofShares(.2, TOKENS).withScoreError("c", error)));
    }
    assertThat(scoreError(table)).isEqualTo(4f, within(1e-6f));
    assertThat(overlap(table)).isEqualTo(ResidualCurve.UNMEASURED);
    ProfileTable other = new ProfileTable(ProfileLimits.defaults());
    table.records().forEach(other::restore);
    assertThat(scoreError(other)).isEqualTo(4f, within(1e-6f));
  }

  private static float scoreError(ProfileTable of) {
    return of.at(key(1), TOKENS).curves().getFirst().scoreError();
  }

  private static float overlap(ProfileTable of) {
    return of.at(key(1), TOKENS).curves().getFirst().overlap();
  }

  @Test
  void aLongerContextIsTakenToNeedAsManyMoreTokens() {
    merge(key(1), .2, TOKENS);
    assertThat(residualAt(64, TOKENS)).isEqualTo(residualAt(512, 8 * TOKENS), within(1e-6));
    assertThat(table.at(key(1), 8 * TOKENS).curves().getFirst().tokensFor(.01))
        .isCloseTo(8 * table.at(key(1), TOKENS).curves().getFirst().tokensFor(.01), within(8));
  }

  /** Shares below 16 tokens of the shorter context are known from the longer one alone. */
  @Test
  void eachShareIsAveragedOverTheSessionsThatMeasuredIt() {
    merge(key(1), .2, 16 * TOKENS);
    merge(key(1), .4, TOKENS);
    assertThat(residualAt(1024, 16 * TOKENS)).isEqualTo(.15, within(1e-6));
    // A share of 1/1024 is 64 tokens there and 4 here.
    assertThat(residualAt(64, 16 * TOKENS)).isEqualTo(.2 / (1 + 1 / 16.0), within(1e-6));
  }

  @Test
  void nothingIsKnownOfOtherModelsShapesAndMethods() {
    merge(key(1), .2, TOKENS);
    assertThat(table.at(key(2), TOKENS).curves()).isEmpty();
    assertThat(table.at(key(1, 2), TOKENS).curves()).isEmpty();
    ModelKey tailor = new ModelKey(key(1).geometry(), PlanMode.PLAN_MODE_TAILORKV);
    assertThat(table.at(tailor, TOKENS).curves()).isEmpty();
    assertThat(key(1).geometry().getKvDtype()).isEqualTo(Dtype.DTYPE_UNSPECIFIED);
  }

  @Test
  void theModelRefinedLongestAgoGoes() {
    ProfileTable three = new ProfileTable(new ProfileLimits(3, 1 << 20));
    for (int model : new int[] {1, 2, 3}) {
      three.merge(key(model), TOKENS, List.of(ofShares(.2, TOKENS)));
    }
    // Looking changes nothing.
    assertThat(three.at(key(2), TOKENS).sessions()).isEqualTo(1);
    three.merge(key(1), TOKENS, List.of(ofShares(.2, TOKENS)));
    assertThat(three.list()).hasSize(3);
    three.merge(key(4), TOKENS, List.of(ofShares(.2, TOKENS)));
    assertThat(three.list())
        .extracting(ProfileTable.Entry::key)
        .containsExactly(key(3), key(1), key(4));
  }

  @Test
  void theBytesOfAllProfilesAreBounded() {
    ProfileTable small = new ProfileTable(new ProfileLimits(100, 8192));
    List<ResidualCurve> heads = Stream.generate(() -> ofShares(.2, TOKENS)).limit(30).toList();
    for (int model = 0; model < 10; model++) {
      small.merge(key(model, 30), TOKENS, heads);
      assertThat(small.bytes()).isBetween(1L, 8192L);
    }
    assertThat(small.list()).hasSize(2).last().extracting("key").isEqualTo(key(9, 30));
    List<ResidualCurve> many = Stream.generate(() -> ofShares(.2, TOKENS)).limit(300).toList();
    small.merge(key(11, 300), TOKENS, many);
    assertThat(small.list()).hasSize(2);
    assertThatThrownBy(() -> new ProfileLimits(0, 8192))
        .isInstanceOf(KvtierException.class)
        .hasMessage("profiles max is 0; it must be 1..65536");
  }
}
