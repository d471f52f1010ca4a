package io.kvtier.gpuworker.tornado;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.Scratch;
import io.kvtier.codec.RawRows;
import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.page.Residence;
import java.util.Arrays;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.TaskGraph;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/** Scores by the sketch, held to the scalar oracle. */
class ScanKernelTest {
  private static final int WEIGHTS_AT = StepLayout.MASSES_AT;

  @ParameterizedTest
  @CsvSource({
    "TWO_PLANES, 4, 64",
    "ONE_PLANE, 4, 64",
    "TWO_PLANES, 1, 128",
    "TWO_PLANES, 7, 80",
    "ONE_PLANE, 2, 16",
    "TWO_PLANES, 3, 256"
  })
  void weightsAreTheOracles(Residence residence, int group, int headDim) {
    int pages = 9;
    CodedHead head = new CodedHead(residence, group, headDim, pages, 5);
    FloatArray scratch = new FloatArray(WEIGHTS_AT + group * pages * TOKENS);
    scratch.init(Float.NaN);
    IntArray histograms = new IntArray(3 * MassHistogram.BUCKETS);
    histograms.init(7);
    IntArray choice = head.choice(4);
    choice.set(StepLayout.WEIGHTS_AT, WEIGHTS_AT);
    FloatArray floats = head.floats();
    TaskGraph graph =
        new TaskGraph("scan")
            .transferToDevice(1, head.arena, choice, floats)
            .task(
                "t",
                ScanKernel::attendAndScan,
                new KernelContext(),
                head.arena,
                choice,
                floats,
                scratch,
                new FloatArray(1),
                histograms)
            .transferToHost(1, scratch, histograms);
    int blocks = (group + 3) / 4;
    Kernel.run(graph, "scan.t", blocks * 3);
    for (int i = 0; i < histograms.getSize(); i++) {
      assertThat(histograms.get(i)).isZero();
    }
    HeadOffsets at = head.offsets();
    GroupQuery query = head.query;
    float[] expected = new float[group * TOKENS];
    float[] largest = new float[group * 3];
    Arrays.fill(largest, Float.NEGATIVE_INFINITY);
    Scratch oracle = new Scratch(group, headDim);
    for (int page = 0; page < pages; page++) {
      Kernels.scalar()
          .sketchScores(query, at, head.sketch(page), residence.planes(), oracle, expected);
      for (int g = 0; g < group; g++) {
        for (int t = 0; t < TOKENS; t++) {
          float score = expected[g * TOKENS + t] + head.raise(g, page);
          largest[g * 3 + page / 4] = Math.max(largest[g * 3 + page / 4], score);
          float weight = scratch.get(WEIGHTS_AT + (g * pages + page) * TOKENS + t);
          float reference = scratch.get(StepLayout.STATS_AT + (g * 3 + page / 4) * 2);
          // A bf16 has 8 bits: one is at most 2^-8 away, and a rounding may fall to either side.
          assertThat(weight / Math.exp(score - reference))
              .as("query %d, page %d, token %d", g, page, t)
              .isCloseTo(1, within(.006));
          assertThat(RawRows.ofBf16(RawRows.toBf16(weight))).isEqualTo(weight);
        }
      }
    }
    for (int g = 0; g < group; g++) {
      for (int chunk = 0; chunk < 3; chunk++) {
        double sum = 0;
        int from = (g * pages + chunk * 4) * TOKENS;
        int to = (g * pages + Math.min(pages, chunk * 4 + 4)) * TOKENS;
        for (int i = from; i < to; i++) {
          sum += scratch.get(WEIGHTS_AT + i);
        }
        int stat = StepLayout.STATS_AT + (g * 3 + chunk) * 2;
        float reference = scratch.get(stat);
        assertThat(reference).isCloseTo(largest[g * 3 + chunk], within(.7f));
        double multiple = reference / Math.log(2);
        assertThat(multiple).isCloseTo(Math.rint(multiple), within(1e-5));
        assertThat(scratch.get(stat + 1) / sum).isCloseTo(1, within(1e-5));
      }
    }
  }
}
