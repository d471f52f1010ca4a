package io.kvtier.gpuworker.tornado;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.Scratch;
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
  void scoresAreTheOracles(Residence residence, int group, int headDim) {
    int pages = 9;
    CodedHead head = new CodedHead(residence, group, headDim, pages, 5);
    FloatArray scores = new FloatArray(group * pages * TOKENS);
    scores.init(Float.NaN);
    FloatArray stats = new FloatArray(group * StepLayout.CHUNKS_MAX * 2);
    IntArray ints = head.ints(4);
    FloatArray floats = head.floats();
    IntArray tables = head.tables();
    TaskGraph graph =
        new TaskGraph("scan")
            .transferToDevice(1, head.arena, ints, floats, tables)
            .task(
                "t",
                ScanKernel::scan,
                new KernelContext(),
                head.arena,
                ints,
                floats,
                tables,
                scores,
                stats)
            .transferToHost(1, scores, stats);
    int blocks = (group + 3) / 4;
    Kernel.run(graph, "scan.t", blocks * 3);
    HeadOffsets at = head.offsets();
    GroupQuery query = head.query;
    float[] expected = new float[group * TOKENS];
    Scratch scratch = new Scratch(group, headDim);
    for (int page = 0; page < pages; page++) {
      Kernels.scalar()
          .sketchScores(query, at, head.sketch(page), residence.planes(), scratch, expected);
      for (int g = 0; g < group; g++) {
        for (int t = 0; t < TOKENS; t++) {
          assertThat(scores.get((g * pages + page) * TOKENS + t))
              .as("query %d, page %d, token %d", g, page, t)
              .isCloseTo(expected[g * TOKENS + t] + head.raise(g, page), within(1e-4f));
        }
      }
    }
    for (int g = 0; g < group; g++) {
      for (int chunk = 0; chunk < 3; chunk++) {
        double sum = 0;
        double max = -1e30;
        int from = (g * pages + chunk * 4) * TOKENS;
        int to = (g * pages + Math.min(pages, chunk * 4 + 4)) * TOKENS;
        for (int i = from; i < to; i++) {
          sum += Math.exp(scores.get(i));
          max = Math.max(max, scores.get(i));
        }
        int stat = (g * 3 + chunk) * 2;
        assertThat(stats.get(stat)).isEqualTo((float) max);
        assertThat(Math.log(stats.get(stat + 1)) + max).isCloseTo(Math.log(sum), within(1e-4));
      }
    }
  }
}
