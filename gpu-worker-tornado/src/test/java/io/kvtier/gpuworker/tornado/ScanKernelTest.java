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
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.TaskGraph;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/** Scores by the sketch, held to the scalar oracle. */
class ScanKernelTest {
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
    FloatArray weights = new FloatArray(group * pages * TOKENS);
    weights.init(Float.NaN);
    FloatArray stats = new FloatArray(group * StepLayout.CHUNKS_MAX * 2);
    IntArray histograms = new IntArray(3 * MassHistogram.BUCKETS);
    histograms.init(7);
    IntArray ints = head.ints(4);
    FloatArray floats = head.floats();
    FloatArray constants = LaneGraphs.constants();
    FloatArray partials = exactRows(group, headDim);
    IntArray tables = head.tables();
    TaskGraph graph =
        new TaskGraph("scan")
            .transferToDevice(1, head.arena, ints, floats, constants, tables, partials)
            .task(
                "t",
                ScanKernel::scan,
                new KernelContext(),
                head.arena,
                ints,
                floats,
                constants,
                tables,
                partials,
                weights,
                stats,
                histograms)
            .transferToHost(1, weights, stats, histograms);
    int blocks = (group + 3) / 4;
    Kernel.run(graph, "scan.t", blocks * 3);
    for (int i = 0; i < histograms.getSize(); i++) {
      assertThat(histograms.get(i)).isZero();
    }
    HeadOffsets at = head.offsets();
    GroupQuery query = head.query;
    float[] expected = new float[group * TOKENS];
    Scratch scratch = new Scratch(group, headDim);
    for (int page = 0; page < pages; page++) {
      Kernels.scalar()
          .sketchScores(query, at, head.sketch(page), residence.planes(), scratch, expected);
      for (int g = 0; g < group; g++) {
        for (int t = 0; t < TOKENS; t++) {
          float score = expected[g * TOKENS + t] + head.raise(g, page);
          float weight = weights.get((g * pages + page) * TOKENS + t);
          // A bf16 has 8 bits: one is at most 2^-8 away, and a rounding may fall to either side.
          assertThat(weight / Math.exp(score - reference(g)))
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
          sum += weights.get(i);
        }
        int stat = (g * 3 + chunk) * 2;
        assertThat(stats.get(stat)).isCloseTo(reference(g), within(1e-5f));
        assertThat(stats.get(stat + 1) / sum).isCloseTo(1, within(1e-5));
      }
    }
  }

  /** Partials whose log-sum-exps are {@link #reference}. */
  private static FloatArray exactRows(int group, int headDim) {
    int length = StepLayout.partialLength(headDim);
    FloatArray partials = new FloatArray((group + 3) / 4 * 4 * length);
    partials.init(0);
    for (int g = 0; g < group; g++) {
      partials.set(g * length + StepLayout.MAX, 1 + g);
      partials.set(g * length + StepLayout.SUM, 2);
    }
    return partials;
  }

  private static float reference(int g) {
    return 1 + g + (float) Math.log(2);
  }
}
