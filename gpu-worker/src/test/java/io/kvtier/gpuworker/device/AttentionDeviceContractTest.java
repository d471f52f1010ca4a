package io.kvtier.gpuworker.device;

import static io.kvtier.gpuworker.device.Attended.query;
import static io.kvtier.gpuworker.device.Attended.relativeError;
import static io.kvtier.gpuworker.device.Attended.requireOracle;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.attention.ReferenceAttention;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * How every device must attend, held to the scalar oracle over the rows that the pages decode to.
 */
public abstract class AttentionDeviceContractTest {
  private static final long MEMORY = 256L << 20;

  /** A device with so many bytes for sessions. */
  protected abstract AttentionDevice device(long bytesMax);

  @ParameterizedTest
  @CsvSource({
    "4, 2, 64, 1",
    "4, 2, 64, 5",
    "4, 2, 64, 127",
    "4, 2, 64, 128",
    "4, 2, 64, 129",
    "4, 2, 64, 700",
    "8, 2, 128, 400",
    "2, 2, 80, 333",
    "6, 3, 96, 500",
    "4, 4, 16, 300",
    "2, 1, 16, 40000"
  })
  void denseHeadsAttendToEveryDecodedRow(int qHeads, int kvHeads, int headDim, int tokens) {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(qHeads, kvHeads, headDim);
      List<HeadPolicy> dense = Collections.nCopies(kvHeads, HeadPolicy.DENSE);
      LayerFixture fixture = new LayerFixture(device, shape, tokens, dense, tokens);
      requireOracle(fixture, dense, query(shape, 1), 1e-3);
      fixture.layer.release();
      assertThat(device.memory().bytesUsed()).isZero();
    }
  }

  @ParameterizedTest
  @CsvSource({"4, 2, 64, 700", "8, 2, 128, 400", "2, 2, 80, 333"})
  void sparseHeadsThatChooseEverythingAttendLikeDenseOnes(
      int qHeads, int kvHeads, int headDim, int tokens) {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(qHeads, kvHeads, headDim);
      for (Residence sketch : Residence.SKETCHED) {
        HeadPolicy every = new HeadPolicy(sketch, tokens, tokens, 0);
        List<HeadPolicy> all = Collections.nCopies(kvHeads, every);
        LayerFixture fixture = new LayerFixture(device, shape, tokens, all, 9);
        requireOracle(fixture, all, query(shape, 2), 1e-3);
      }
    }
  }

  /**
   * Heads of each kind in one layer: none may read another's slots. So many, too, that a device may
   * serve them in several steps.
   */
  @ParameterizedTest
  @CsvSource({"8, 4, 900", "96, 24, 300"})
  void headsOfEveryResidenceAttendInOneLayer(int qHeads, int kvHeads, int tokens) {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(qHeads, kvHeads, 64);
      List<HeadPolicy> mixed = new ArrayList<>();
      while (mixed.size() < kvHeads) {
        for (Residence residence : Residence.values()) {
          mixed.add(new HeadPolicy(residence, tokens, tokens, 0));
        }
      }
      LayerFixture fixture = new LayerFixture(device, shape, tokens, mixed, 12);
      requireOracle(fixture, mixed, query(shape, 6), 1e-3);
      long bytes = 0;
      for (HeadPolicy head : mixed) {
        bytes += (long) fixture.layer.pages() * head.residence().deviceBytes(shape.layout());
      }
      assertThat(fixture.layer.residentBytes()).isEqualTo(shape.exactRowBytes() + bytes);
      fixture.layer.release();
      assertThat(device.memory().bytesUsed()).isZero();
    }
  }

  /**
   * A sketch's scores are wrong by chance, and e^score is too small on average for it. Without the
   * correction the one-plane estimate of the whole falls short by far more than this allows.
   */
  @ParameterizedTest
  @EnumSource(names = {"TWO_PLANES", "ONE_PLANE"})
  void theMassOfTheRestIsEstimatedWithoutBias(Residence sketch) {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(4, 2, 64);
      HeadPolicy few = new HeadPolicy(sketch, 1, 1, 1);
      List<HeadPolicy> policies = List.of(few, few);
      LayerFixture fixture = new LayerFixture(device, shape, 6000, policies, 14);
      double sum = 0;
      int count = 0;
      for (int i = 0; i < 20; i++) {
        float[] query = query(shape, 100 + i);
        Attended actual = Attended.by(fixture, policies, query);
        Attended expected = Attended.byOracle(fixture, query, fixture.keys, fixture.values);
        for (int q = 0; q < shape.qHeads(); q++) {
          sum += actual.lse[q] - expected.lse[q];
          count++;
        }
      }
      assertThat(sum / count).isCloseTo(0, within(.06));
    }
  }

  /**
   * Where attention lies on one row, exact or of a first or last page, the rest's mass relative to
   * it passes through the smallest numbers of fp32, whose reciprocal is infinite.
   */
  @ParameterizedTest
  @EnumSource(names = {"TWO_PLANES", "ONE_PLANE"})
  void aRestThatIsNothingBesideOneRowChangesNothing(Residence sketch) {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(2, 2, 64);
      HeadPolicy few = new HeadPolicy(sketch, 1, 16, .003f);
      List<HeadPolicy> policies = List.of(few, few);
      LayerFixture fixture = new LayerFixture(device, shape, 700, policies, 31);
      int paged = fixture.layer.pages() * PageLayout.TOKENS;
      for (int position : new int[] {10, paged - 10, fixture.tokens - 1}) {
        int row = position * shape.rowLength();
        for (float scale = 2; scale < 8; scale += .05f) {
          float[] query = Arrays.copyOfRange(fixture.keys, row, row + shape.rowLength());
          for (int i = 0; i < query.length; i++) {
            query[i] *= scale;
          }
          requireOracle(fixture, policies, query, 1e-3);
        }
      }
    }
  }

  @Test
  void theDominantTokensAreFoundAndTheRestIsEstimated() {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(4, 2, 64);
      HeadPolicy few = HeadPolicy.sparse(64, 200, .01f);
      List<HeadPolicy> policies = List.of(few, few);
      LayerFixture fixture = new LayerFixture(device, shape, 3000, policies, 4);
      float[] query = query(shape, 5);
      float[] output = Attended.by(fixture, policies, query).output;
      float[] expected = Attended.byOracle(fixture, query, fixture.keys, fixture.values).output;
      double error = relativeError(output, expected);
      assertThat(error).isLessThan(.25);
      // Attending the same tokens without the estimate of the rest must be worse, or the estimate
      // does nothing.
      assertThat(error).isLessThan(.8 * relativeError(withoutRest(fixture, query), expected));
    }
  }

  /**
   * The number of tokens follows the query: nearly every row leaves no more than was asked for. A
   * fixed number, or an uncorrected estimate, fails this.
   */
  @ParameterizedTest
  @EnumSource(names = {"TWO_PLANES", "ONE_PLANE"})
  void theAdaptiveBudgetLeavesNoMoreThanWasAsked(Residence sketch) {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(4, 2, 64);
      HeadPolicy adaptive = new HeadPolicy(sketch, 1, 4000, .05f * .3f);
      HeadPolicy fixed = new HeadPolicy(sketch, 64, 64, .05f * .3f);
      LayerFixture fixture = new LayerFixture(device, shape, 4000, List.of(adaptive, adaptive), 21);
      assertThat(rowsWithin(fixture, adaptive, .05)).isGreaterThanOrEqualTo(.95);
      assertThat(rowsWithin(fixture, fixed, .05)).isLessThan(.6);
    }
  }

  /** The share of (query, KV head) rows whose true mass left out is within what was asked. */
  private static double rowsWithin(LayerFixture fixture, HeadPolicy policy, double asked) {
    LayerShape shape = fixture.shape;
    LayerPass pass = fixture.layer.newPass(List.of(policy, policy));
    int rows = 0;
    int within = 0;
    for (int i = 0; i < 60; i++) {
      // From spread to sharp attention.
      float[] query = query(shape, 300 + i);
      for (int j = 0; j < query.length; j++) {
        query[j] *= .4f + i / 40f;
      }
      pass.choose(query, 0, new float[0], new float[0], 0);
      for (int head = 0; head < shape.kvHeads(); head++) {
        double[] masses = masses(fixture, query, head);
        double left = 1;
        for (int t = 0; t < fixture.tokens; t++) {
          left -= fixture.layer.isExact(t) ? masses[t] : 0;
        }
        for (int c = 0; c < pass.chosenCount(head); c++) {
          left -= masses[pass.chosenPosition(head, c)];
        }
        rows++;
        within += left <= asked ? 1 : 0;
      }
      pass.release();
    }
    return (double) within / rows;
  }

  /** Every token's true attention mass, pooled over the group. */
  private static double[] masses(LayerFixture fixture, float[] query, int head) {
    LayerShape shape = fixture.shape;
    int headDim = shape.headDim();
    double[] masses = new double[fixture.tokens];
    for (int g = 0; g < shape.group(); g++) {
      double[] weights = new double[fixture.tokens];
      double total = 0;
      for (int t = 0; t < fixture.tokens; t++) {
        double dot = 0;
        for (int d = 0; d < headDim; d++) {
          dot +=
              query[(head * shape.group() + g) * headDim + d]
                  * fixture.keys[t * shape.rowLength() + head * headDim + d];
        }
        weights[t] = Math.exp(dot / Math.sqrt(headDim) - 20);
        total += weights[t];
      }
      for (int t = 0; t < fixture.tokens; t++) {
        masses[t] += weights[t] / total / shape.group();
      }
    }
    return masses;
  }

  /** What is not chosen counts as its page's mean value; as nothing, the output would be near 0. */
  @Test
  void theRestIsWorthItsPagesMeanValues() {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(2, 1, 64);
      List<HeadPolicy> none = List.of(HeadPolicy.sparse(1, 1, 1));
      LayerFixture fixture = new LayerFixture(device, shape, 0, none, 1);
      int tokens = 64 * 30;
      float[] keys = LayerFixture.gaussian(new SplittableRandom(3), tokens * 64, .1);
      float[] values = LayerFixture.gaussian(new SplittableRandom(4), tokens * 64, .1);
      float[] query = new float[128];
      Arrays.fill(query, .5f);
      for (int i = 0; i < keys.length; i++) {
        boolean even = i / 64 / 64 % 2 == 0;
        keys[i] += even ? .5f : 0;
        values[i] += even ? 1 : -1;
      }
      fixture.layer.append(keys, values, tokens, fixture);
      Attended actual = Attended.by(fixture, none, query);
      float[] expected = new float[64];
      double lse =
          ReferenceAttention.attend(query, 0, keys, values, 0, 64, tokens, 64, expected, 0);
      assertThat(actual.lse[0]).isCloseTo((float) lse, within(.05f));
      assertThat(relativeError(Arrays.copyOf(actual.output, 64), expected)).isLessThan(.1);
      assertThat(expected[0]).isGreaterThan(.5f);
    }
  }

  /** The chosen and exact tokens alone, from the decoded rows. */
  private static float[] withoutRest(LayerFixture fixture, float[] query) {
    LayerShape shape = fixture.shape;
    HeadPolicy few = HeadPolicy.sparse(64, 200, .01f);
    LayerPass pass = fixture.layer.newPass(List.of(few, few));
    pass.choose(query, 0, new float[0], new float[0], 0);
    float[] keys = fixture.decoded(true);
    float[] values = fixture.decoded(false);
    float[] output = new float[query.length];
    for (int q = 0; q < shape.qHeads(); q++) {
      int head = q / shape.group();
      boolean[] kept = new boolean[fixture.tokens];
      for (int t = 0; t < fixture.tokens; t++) {
        kept[t] = fixture.layer.isExact(t);
      }
      for (int i = 0; i < pass.chosenCount(head); i++) {
        kept[pass.chosenPosition(head, i)] = true;
      }
      attendKept(shape, kept, query, q, keys, values, output);
    }
    return output;
  }

  private static void attendKept(
      LayerShape shape,
      boolean[] kept,
      float[] query,
      int q,
      float[] keys,
      float[] values,
      float[] output) {
    int headDim = shape.headDim();
    int at = q / shape.group() * headDim;
    float[] keptKeys = new float[kept.length * headDim];
    float[] keptValues = new float[kept.length * headDim];
    int n = 0;
    for (int t = 0; t < kept.length; t++) {
      if (kept[t]) {
        System.arraycopy(keys, t * shape.rowLength() + at, keptKeys, n * headDim, headDim);
        System.arraycopy(values, t * shape.rowLength() + at, keptValues, n * headDim, headDim);
        n++;
      }
    }
    ReferenceAttention.attend(
        query, q * headDim, keptKeys, keptValues, 0, headDim, n, headDim, output, q * headDim);
  }

  /** What a wrong row would do: each is far beyond the tolerance of the tests above. */
  @ParameterizedTest
  @EnumSource(names = {"TWO_PLANES", "ONE_PLANE"})
  void wrongRowsAreSeenByTheOracle(Residence sketch) {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(4, 2, 64);
      List<HeadPolicy> all = Collections.nCopies(2, new HeadPolicy(sketch, 700, 700, 0));
      LayerFixture fixture = new LayerFixture(device, shape, 700, all, 9);
      float[] query = query(shape, 2);
      Attended good = Attended.by(fixture, all, query);
      int rowBytes = shape.rowForm().bytes();
      int keyAt = shape.rowForm().fetchedAt(sketch);
      // Planted: all bits inverted, as a decoder with swapped planes would read them.
      Attended inverted =
          Attended.by(
              fixture,
              all,
              query,
              (pass, head) -> {
                DeviceSlot rows = fixture.rows(pass, head);
                for (int i = 0; i < pass.chosenCount(head); i++) {
                  int row = i * rowBytes;
                  for (int at = row + keyAt; at < row + shape.headDim() / 2; at++) {
                    rows.buffer().putByte(at, (byte) ~rows.buffer().getByte(at));
                  }
                }
                return rows;
              },
              1);
      // Planted: each token has the row of the one before it.
      Attended shifted =
          Attended.by(
              fixture,
              all,
              query,
              (pass, head) -> {
                DeviceSlot rows = fixture.rows(pass, head);
                int length = (pass.chosenCount(head) - 1) * rowBytes;
                rows.buffer().putBytes(rowBytes, rows.buffer(), 0, length);
                return rows;
              },
              1);
      // Planted: rows of the other head.
      Attended crossed =
          Attended.by(fixture, all, query, (pass, head) -> fixture.rows(pass, 1 - head), 1);
      for (Attended planted : List.of(inverted, shifted, crossed)) {
        assertThat(relativeError(planted.output, good.output)).isGreaterThan(.02);
      }
    }
  }

  /** In whatever order rows and pages come, and in how many calls: the same bits. */
  @Test
  void theOutputDoesNotDependOnWhatComesWhen() {
    long seed = System.nanoTime();
    System.out.println("AttentionDeviceContractTest seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    try (AttentionDevice device = device(MEMORY)) {
      for (int trial = 0; trial < 20; trial++) {
        LayerShape shape = LayerFixture.shape(8, 4, trial % 2 == 0 ? 64 : 80);
        int tokens = 200 + random.nextInt(2000);
        int most = 1 + random.nextInt(600);
        List<HeadPolicy> mixed =
            Stream.of(Residence.values())
                .map(r -> new HeadPolicy(r, Math.min(most, 100), most, .003f))
                .toList();
        LayerFixture fixture = new LayerFixture(device, shape, tokens, mixed, random.nextLong());
        float[] query = query(shape, random.nextLong());
        Attended once = Attended.by(fixture, mixed, query, fixture::rows, random.nextLong());
        Attended again = Attended.by(fixture, mixed, query, fixture::rows, random.nextLong());
        assertThat(again.output).isEqualTo(once.output);
        assertThat(again.lse).isEqualTo(once.lse);
        fixture.layer.release();
      }
      assertThat(device.memory().bytesUsed()).isZero();
    }
  }

  @Test
  void aPassThatLacksRowsDoesNotFinish() {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(4, 2, 64);
      List<HeadPolicy> all = Collections.nCopies(2, HeadPolicy.sparse(100, 100, 0));
      LayerFixture fixture = new LayerFixture(device, shape, 700, all, 9);
      LayerPass pass = fixture.layer.newPass(all);
      pass.choose(query(shape, 2), 0, new float[0], new float[0], 0);
      DeviceSlot rows = fixture.rows(pass, 0);
      for (int i = 0; i < 99; i++) {
        pass.giveRow(0, i, rows, i * shape.rowForm().bytes());
      }
      pass.attendRows();
      assertThat(pass.attendedCount(0)).isBetween(1, 99);
      assertThat(pass.attendedCount(1)).isZero();
      Attended none = Attended.none(shape);
      assertThatThrownBy(() -> pass.finish(none.output, 0, none.lse, 0))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("of 100 chosen tokens");
      pass.release();
      rows.release();
    }
  }

  @Test
  void newTokensOfAStepAreSeenAndNotKept() {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(2, 1, 64);
      List<HeadPolicy> dense = List.of(HeadPolicy.DENSE);
      LayerFixture fixture = new LayerFixture(device, shape, 300, dense, 6);
      float[] query = query(shape, 3);
      float[] newKeys = new float[3 * 64];
      System.arraycopy(query, 0, newKeys, 64, 64);
      float[] newValues = new float[3 * 64];
      Arrays.fill(newValues, 100);
      LayerPass pass = fixture.layer.newPass(dense);
      Attended seen = Attended.none(shape);
      pass.choose(query, 0, newKeys, newValues, 2);
      pass.finish(seen.output, 0, seen.lse, 0);
      assertThat(seen.output[0]).isGreaterThan(10);
      assertThat(fixture.layer.tokens()).isEqualTo(300);
      requireOracle(fixture, dense, query, 1e-3);
    }
  }
}
