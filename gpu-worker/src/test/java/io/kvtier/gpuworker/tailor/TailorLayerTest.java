package io.kvtier.gpuworker.tailor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.attention.ReferenceAttention;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import org.agrona.DirectBuffer;
import org.junit.jupiter.api.Test;

final class TailorLayerTest {
  private static final int TOKENS = 600;
  private static final LayerShape SHAPE =
      new LayerShape(
          new Fingerprint(1, 2), new PageLayout(Codec.ROT4, Codec.ROT4, 1, 64), 2, 2, 4, 64);
  private static final DeviceLayer.PageSink NO_PAGES =
      new DeviceLayer.PageSink() {
        @Override
        public PageKey key(int pageIndex, DirectBuffer page) {
          throw new AssertionError("nothing goes to the tier");
        }

        @Override
        public void accept(PageKey key, DirectBuffer page, int length) {
          throw new AssertionError("nothing goes to the tier");
        }
      };

  private final float[] keys = gaussian(1, TOKENS * 64);
  private final float[] values = gaussian(2, TOKENS * 64);
  private final float[] query = gaussian(3, 2 * 64);

  private static float[] gaussian(long seed, int length) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    return x;
  }

  private TailorLayer layer() {
    TailorLayer layer = new TailorLayer(false, SHAPE);
    layer.append(keys, values, TOKENS, NO_PAGES);
    return layer;
  }

  private float[] attend(TailorLayer layer, HeadPolicy policy, float[] lse) {
    LayerPass pass = layer.newPass(List.of(policy));
    float[] output = new float[128];
    pass.choose(query, 0, new float[0], new float[0], 0);
    pass.finish(output, 0, lse, 0);
    return output;
  }

  private float[] exact() {
    float[] output = new float[128];
    for (int q = 0; q < 2; q++) {
      ReferenceAttention.attend(query, q * 64, keys, values, 0, 64, TOKENS, 64, output, q * 64);
    }
    return output;
  }

  private static double error(float[] actual, float[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += Math.pow(actual[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
  }

  @Test
  void aSparseLayerThatChoosesEveryTokenIsExact() {
    assertThat(error(attend(layer(), HeadPolicy.sparse(TOKENS, TOKENS, 0), new float[2]), exact()))
        .isLessThan(1e-4);
  }

  @Test
  void whatIsNotChosenIsLeftOutAndNotEstimated() {
    float[] few = new float[2];
    float[] all = new float[2];
    assertThat(attend(layer(), HeadPolicy.sparse(16, 16, 0), few)).hasSize(128);
    assertThat(attend(layer(), HeadPolicy.sparse(TOKENS, TOKENS, 0), all)).hasSize(128);
    assertThat(few[0]).isLessThan(all[0] - .5f);
  }

  @Test
  void theTokensThatLookBestInEightChannelsAreChosen() {
    // A planted token: aligned with both queries in every channel.
    for (int d = 0; d < 64; d++) {
      keys[300 * 64 + d] = 3 * (query[d] + query[64 + d]);
    }
    TailorLayer layer = layer();
    LayerPass pass = layer.newPass(List.of(HeadPolicy.sparse(16, 16, 0)));
    pass.choose(query, 0, new float[0], new float[0], 0);
    assertThat(pass.chosenCount(0)).isEqualTo(16);
    boolean found = false;
    for (int i = 0; i < 16; i++) {
      found |= pass.chosenPosition(0, i) == 300;
      assertThat(pass.chosenPosition(0, i)).isBetween(8, TOKENS - 57);
    }
    assertThat(found).isTrue();
    // Eight channels of every token, and keys and values of 16.
    assertThat(pass.bytesMoved()).isEqualTo(8 * TOKENS * 2 + 2 * 16 * 64 * 2);
  }

  /**
   * As published: the channels in which |query| x the largest |key| is largest, the group's queries
   * averaged, and the tokens whose products over these are largest. Channels differ here.
   */
  @Test
  void theEightChannelsAreThoseOfLargestQueryTimesLargestKey() {
    for (int i = 0; i < keys.length; i++) {
      keys[i] *= 1 + i % 7;
    }
    TailorLayer layer = layer();
    LayerPass pass = layer.newPass(List.of(HeadPolicy.sparse(16, 16, 0)));
    pass.choose(query, 0, new float[0], new float[0], 0);
    double[] mean = new double[64];
    double[] weights = new double[64];
    for (int d = 0; d < 64; d++) {
      mean[d] = (query[d] + query[64 + d]) / 2.;
      for (int t = 0; t < TOKENS; t++) {
        weights[d] = Math.max(weights[d], Math.abs(mean[d]) * Math.abs(keys[t * 64 + d]));
      }
    }
    int[] channels = largest(weights, 0, 64, 8);
    double[] scores = new double[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
      for (int channel : channels) {
        scores[t] += mean[channel] * keys[t * 64 + channel];
      }
    }
    int[] expected = largest(scores, 8, TOKENS - 56, 16);
    int[] chosen = new int[16];
    Arrays.setAll(chosen, i -> pass.chosenPosition(0, i));
    assertThat(chosen).containsExactly(expected);
  }

  /** Indices of the k largest, rising. */
  private static int[] largest(double[] x, int from, int to, int k) {
    return IntStream.range(from, to)
        .boxed()
        .sorted(Comparator.comparingDouble(i -> -x[i]))
        .limit(k)
        .mapToInt(i -> i)
        .sorted()
        .toArray();
  }

  @Test
  void aDenseLayerAttendsToMinMaxCodesAndMoreBitsAreNearer() {
    double before = Double.POSITIVE_INFINITY;
    for (int bits : new int[] {1, 2, 8}) {
      double error = error(attend(layer(), HeadPolicy.DENSE.withBits(bits), new float[2]), exact());
      assertThat(error).isLessThan(before).isPositive();
      before = error;
    }
    assertThat(before).isLessThan(.05);
  }

  /** As published, what is generated stays; with bounded bytes it can be chosen, or is left out. */
  @Test
  void whereBytesAreBoundedTheWindowMovesOn() {
    HeadPolicy sixteen = HeadPolicy.sparse(16, 16, 0);
    for (boolean bounded : new boolean[] {false, true}) {
      TailorLayer layer = new TailorLayer(bounded, SHAPE);
      layer.append(keys, values, TOKENS - 200, NO_PAGES);
      layer.place(List.of(sixteen));
      assertThat(attend(layer, sixteen, new float[2])).hasSize(128);
      final long before = layer.residentBytes();
      float[] later = Arrays.copyOfRange(keys, (TOKENS - 200) * 64, TOKENS * 64);
      // Aligned with both queries.
      for (int d = 0; d < 64; d++) {
        later[10 * 64 + d] = 3 * (query[d] + query[64 + d]);
      }
      layer.append(later, later, 200, NO_PAGES);
      LayerPass pass = layer.newPass(List.of(sixteen));
      pass.choose(query, 0, new float[0], new float[0], 0);
      boolean found = false;
      for (int i = 0; i < 16; i++) {
        found |= pass.chosenPosition(0, i) == TOKENS - 190;
      }
      assertThat(found).isEqualTo(bounded);
      assertThat(layer.residentBytes() - before).isEqualTo(bounded ? 0 : 200 * 256);
    }
  }

  /** The buffers of channels and of chosen rows apart, which all layers share. */
  @Test
  void deviceBytesAreThoseOfTheMethod() {
    TailorLayer layer = layer();
    assertThat(layer.residentBytes()).as("before the plan").isZero();
    HeadPolicy sixteen = HeadPolicy.sparse(16, 16, 0);
    layer.place(List.of(sixteen));
    assertThat(attend(layer, sixteen, new float[2])).hasSize(128);
    assertThat(layer.residentBytes()).isEqualTo(64 * 256);
    assertThat(layer.fork().residentBytes()).isEqualTo(layer.residentBytes());
    assertThat(layer.largestKey(0, 0)).isCloseTo(3, within(2f));
    // 128 exact rows; of the others keys and values of two bits, and 4 bytes each for the groups of
    // 64 tokens of a key's channel and of 64 dimensions of a value.
    long dense = 128 * 256 + 472 * 2 * 64 * 2 / 8 + 472 * 4 * 2;
    assertThat(layer.bytes(List.of(HeadPolicy.DENSE.withBits(2)), TOKENS)).isEqualTo(dense);
  }
}
