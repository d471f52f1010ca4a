package io.kvtier.gpuworker.tornado;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.kvtier.attention.Kernels;
import io.kvtier.attention.Scratch;
import io.kvtier.page.Residence;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.TaskGraph;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/** Attention from full codes and its merge, held to the scalar oracle. */
class AttentionKernelsTest {
  private static final int CHUNK_PAGES = 4;

  @ParameterizedTest
  @CsvSource({
    "4, 64, 9, 1, 4",
    "1, 128, 4, 1, 0",
    "7, 80, 5, 1, 64",
    "2, 16, 1, 1, 4",
    "3, 256, 3, 1, 4",
    "4, 64, 9, 40, 4",
    "4, 64, 9, 0, 4"
  })
  void partialsAreTheOracles(int group, int headDim, int pages, float sharpness, int skipped) {
    CodedHead head = new CodedHead(Residence.DENSE, group, headDim, pages, 6);
    scale(head, sharpness);
    int chunks = (pages + CHUNK_PAGES - 1) / CHUNK_PAGES;
    int length = StepLayout.partialLength(headDim);
    FloatArray partials = new FloatArray(chunks * head.blocks() * 4 * length);
    partials.init(Float.NaN);
    IntArray ints = head.ints(CHUNK_PAGES);
    ints.set(StepLayout.CODE_CHUNKS, chunks);
    ints.set(StepLayout.HEADS + StepLayout.SKIPPED, skipped);
    FloatArray floats = head.floats();
    FloatArray merged = new FloatArray(StepLayout.MERGED_AT + head.blocks() * 4 * length);
    Kernel.run(
        new TaskGraph("dense")
            .transferToDevice(1, head.arena, ints, floats)
            .task(
                "t", AttendKernel::attend, new KernelContext(), head.arena, ints, floats, partials)
            .transferToHost(1, partials),
        "dense.t",
        head.blocks() * chunks);
    Kernel.run(
        new TaskGraph("merge")
            .transferToDevice(1, ints, partials)
            .task("t", MergeKernel::merge, new KernelContext(), ints, partials, merged)
            .transferToHost(1, merged),
        "merge.t",
        head.blocks() * 4);
    for (int g = 0; g < group; g++) {
      Expected expected = new Expected(head, g, skipped);
      int at = StepLayout.MERGED_AT + g * length;
      assertThat((double) merged.get(at + StepLayout.MAX))
          .isCloseTo(expected.lse, within(1e-5 * Math.max(1, Math.abs(expected.lse))));
      for (int i = 0; i < headDim; i++) {
        assertThat((double) merged.get(at + StepLayout.VALUES + i))
            .isCloseTo(expected.rotated[i], within(2e-4));
        assertThat((double) merged.get(at + StepLayout.VALUES + headDim + i))
            .isCloseTo(expected.means[i], within(2e-4));
      }
    }
  }

  /** Multiplies the query, for attention that is all on one token, or the same on all. */
  private static void scale(CodedHead head, float factor) {
    float[] query = new float[head.group() * head.headDim()];
    for (int i = 0; i < query.length; i++) {
      query[i] = head.query.plain()[i] * factor * (float) Math.sqrt(head.headDim());
    }
    head.query.load(query, 0, true, Kernels.scalar());
  }

  /** The oracle's attention of one query over all tokens but the first. */
  private static final class Expected {
    double lse;
    final double[] rotated;
    final double[] means;

    Expected(CodedHead head, int g, int skipped) {
      int headDim = head.headDim();
      int group = head.group();
      rotated = new double[headDim];
      means = new double[headDim];
      Scratch scratch = new Scratch(group, headDim);
      float[] scores = new float[group * TOKENS];
      double max = Double.NEGATIVE_INFINITY;
      double[] all = new double[head.pages * TOKENS];
      for (int page = 0; page < head.pages; page++) {
        long tokens = page > 0 ? -1L : skipped == 64 ? 0 : -1L << skipped;
        Kernels.scalar()
            .exactScores(
                head.query,
                head.offsets(),
                head.sketch(page),
                head.codes(page),
                tokens,
                scratch,
                scores);
        for (int t = 0; t < TOKENS; t++) {
          all[page * TOKENS + t] = scores[g * TOKENS + t];
          max = Math.max(max, all[page * TOKENS + t]);
        }
      }
      double total = 0;
      for (double score : all) {
        total += Math.exp(score - max);
      }
      lse = max + Math.log(total);
      for (int page = 0; page < head.pages; page++) {
        float[] weights = new float[group * TOKENS];
        float sum = 0;
        for (int t = 0; t < TOKENS; t++) {
          weights[g * TOKENS + t] = (float) Math.exp(all[page * TOKENS + t] - lse);
          sum += weights[g * TOKENS + t];
        }
        float[] values = new float[group * scratch.width()];
        Kernels.scalar()
            .addValues(head.offsets(), head.codes(page), group, weights, scratch, values);
        scratch.order(values, g * scratch.width());
        float[] mean = new float[group * headDim];
        float[] pageWeights = new float[group];
        pageWeights[g] = sum;
        Kernels.scalar()
            .addMeans(
                new long[] {head.sketch(page)},
                0,
                1,
                head.offsets().valueMean(),
                headDim,
                group,
                pageWeights,
                0,
                mean);
        for (int i = 0; i < headDim; i++) {
          rotated[i] += values[g * scratch.width() + i];
          means[i] += mean[g * headDim + i];
        }
      }
    }
  }

  /** Partials of nothing merge as nothing, and nothing but them is nothing. */
  @Test
  void emptyPartialsMergeAsNothing() {
    int headDim = 16;
    int length = StepLayout.partialLength(headDim);
    int slots = 3;
    IntArray ints = new IntArray(StepLayout.INTS);
    ints.init(0);
    ints.set(StepLayout.HEAD_DIM, headDim);
    ints.set(StepLayout.BLOCKS, 1);
    ints.set(StepLayout.HEADS + StepLayout.SLOTS, slots);
    FloatArray partials = new FloatArray(slots * 4 * length);
    partials.init(0);
    for (int slot = 0; slot < slots; slot++) {
      for (int q = 0; q < 4; q++) {
        partials.set((slot * 4 + q) * length, StepLayout.NONE);
      }
    }
    // Query 1 has something in its middle slot alone.
    int some = (4 + 1) * length;
    partials.set(some + StepLayout.MAX, -70);
    partials.set(some + StepLayout.SUM, 2);
    partials.set(some + StepLayout.VALUES + 3, 5);
    FloatArray merged = new FloatArray(StepLayout.MERGED_AT + 4 * length);
    merged.init(Float.NaN);
    Kernel.run(
        new TaskGraph("empty")
            .transferToDevice(1, ints, partials)
            .task("t", MergeKernel::merge, new KernelContext(), ints, partials, merged)
            .transferToHost(1, merged),
        "empty.t",
        4);
    int first = StepLayout.MERGED_AT;
    assertThat(merged.get(first)).isEqualTo(StepLayout.NONE);
    assertThat(merged.get(first + StepLayout.VALUES + 3)).isZero();
    assertThat(merged.get(first + length)).isCloseTo(-70 + (float) Math.log(2), within(1e-5f));
    assertThat(merged.get(first + length + StepLayout.VALUES + 3)).isCloseTo(2.5f, within(1e-6f));
  }
}
