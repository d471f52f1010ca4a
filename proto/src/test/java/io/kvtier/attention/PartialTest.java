package io.kvtier.attention;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

class PartialTest {
  private static final int HEAD_DIM = 16;

  @Test
  void partialsOfAnySplitMergeToTheReference() {
    for (long seed = 0; seed < 50; seed++) {
      SplittableRandom random = new SplittableRandom(seed);
      int tokens = 1 + random.nextInt(200);
      float[] query = gaussian(random, HEAD_DIM, 3);
      float[] keys = gaussian(random, tokens * HEAD_DIM, 3);
      float[] values = gaussian(random, tokens * HEAD_DIM, 1);
      float[] expected = new float[HEAD_DIM];
      double lse =
          ReferenceAttention.attend(
              query, 0, keys, values, 0, HEAD_DIM, tokens, HEAD_DIM, expected, 0);
      Partial merged = new Partial(HEAD_DIM);
      OnlineSoftmax part = new OnlineSoftmax(HEAD_DIM);
      for (int t = 0; t < tokens; t++) {
        if (random.nextInt(10) == 0) {
          part.mergeInto(merged);
          part.clear();
        }
        add(part, query, keys, values, t);
      }
      part.mergeInto(merged);
      assertThat((double) merged.lse()).as("seed %d", seed).isCloseTo(lse, within(1e-4));
      for (int i = 0; i < HEAD_DIM; i++) {
        assertThat(merged.output()[i]).as("seed %d", seed).isCloseTo(expected[i], within(2e-5f));
      }
    }
  }

  @Test
  void theEmptySetIsNeutralAndHugeScoresDoNotOverflow() {
    Partial partial = new Partial(2);
    assertThat(partial.isEmpty()).isTrue();
    partial.merge(new Partial(2));
    assertThat(partial.isEmpty()).isTrue();
    partial.merge(new float[] {1, 2}, 0, 1f, 30_000f);
    partial.merge(new float[] {5, 6}, 0, 1f, -30_000f);
    partial.merge(new Partial(2));
    assertThat(partial.output()).containsExactly(1, 2);
    assertThat(partial.lse()).isEqualTo(30_000f);
  }

  private static void add(OnlineSoftmax sum, float[] query, float[] keys, float[] values, int t) {
    float score = 0;
    for (int i = 0; i < HEAD_DIM; i++) {
      score += query[i] * keys[t * HEAD_DIM + i];
    }
    score /= (float) Math.sqrt(HEAD_DIM);
    sum.raise(score);
    float weight = sum.weight(score);
    for (int i = 0; i < HEAD_DIM; i++) {
      sum.sum()[i] += weight * values[t * HEAD_DIM + i];
    }
  }

  private static float[] gaussian(SplittableRandom random, int length, double deviation) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) (random.nextGaussian() * deviation);
    }
    return x;
  }
}
