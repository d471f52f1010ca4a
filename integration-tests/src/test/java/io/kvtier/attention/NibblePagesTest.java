package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.assertj.core.api.Assertions.assertThat;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.SplittableRandom;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Both layouts that are measured against each other give the same scores. */
class NibblePagesTest {
  private static final int HEAD_DIM = 128;
  private static final int PLANE = HEAD_DIM * Long.BYTES;
  private static final int FACTORS = 2 * TOKENS + 2 * HEAD_DIM;
  private static final HeadOffsets AT =
      new HeadOffsets(HEAD_DIM, 0, 2 * PLANE, 2 * PLANE + 2 * TOKENS, 0, 0, 0, 0);

  @ParameterizedTest
  @ValueSource(ints = {1, 4, 5})
  void nibblesScoreAsPlanesDo(int group) {
    SplittableRandom random = new SplittableRandom(group);
    float[] queries = new float[group * HEAD_DIM];
    for (int i = 0; i < queries.length; i++) {
      queries[i] = (float) random.nextGaussian();
    }
    GroupQuery query = new GroupQuery(group, HEAD_DIM);
    query.load(queries, 0, true, Kernels.best());
    Scratch scratch = new Scratch(group, HEAD_DIM);
    float[] expected = new float[group * TOKENS];
    float[] exact = new float[group * TOKENS];
    float[] looked = new float[group * TOKENS];
    try (Arena arena = Arena.ofConfined()) {
      long sketch = random(random, arena, 2 * PLANE + FACTORS);
      long fine = random(random, arena, 2 * PLANE);
      long nibbles = arena.allocate(4 * PLANE + FACTORS, 64).address();
      NibblePages.write(AT, sketch, fine, nibbles, scratch);
      NibblePages pages = new NibblePages(query);
      Kernels.best().exactScores(query, AT, sketch, fine, -1L, scratch, expected);
      pages.exactScores(nibbles, scratch, exact);
      pages.sketchScores(nibbles, scratch, looked);
    }
    assertThat(exact).isEqualTo(expected);
    // A table's entry is rounded to a 63rd of the widest dimension's range.
    double error = 0;
    double square = 0;
    for (int i = 0; i < looked.length; i++) {
      error += Math.pow(looked[i] - expected[i], 2);
      square += Math.pow(expected[i], 2);
    }
    assertThat(Math.sqrt(error / square)).isLessThan(.1);
  }

  private static long random(SplittableRandom random, Arena arena, int length) {
    MemorySegment segment = arena.allocate(length, 64);
    for (int i = 0; i < length; i += Long.BYTES) {
      segment.set(JAVA_LONG, i, random.nextLong() & 0xBFFF_BFFF_BFFF_BFFFL);
    }
    return segment.address();
  }
}
