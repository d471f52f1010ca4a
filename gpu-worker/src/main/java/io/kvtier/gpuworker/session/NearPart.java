package io.kvtier.gpuworker.session;

import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.PageGroupAttention;
import io.kvtier.attention.Partial;
import io.kvtier.client.NearPages.Attended;
import io.kvtier.client.NearPages.Queries;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Residence;
import java.util.Arrays;
import java.util.List;

/**
 * What one query of a layer has a tier attend to: the first pages of its streamed heads, and the
 * partial that came of it. One thread at a time.
 */
final class NearPart {
  /** Outputs that differ by more, relative to their norm, are not of the same pages. */
  private static final double OUTPUT_TOLERANCE = 2e-3;

  private static final double LSE_TOLERANCE = 1e-3;

  private final LayerShape shape;
  final Queries queries;
  final int pages;

  /** By page: its tokens, the sinks left out. */
  final long[] tokens;

  private final HeadOffsets at;

  /** What the fetched pages give, by streamed head; empty unless it is to be compared. */
  private PageGroupAttention[] fetched = {};

  /**
   * A part.
   *
   * @param heads streamed ones, rising
   * @param query {@code [qHeads][headDim]} from {@code queryAt} on
   * @param pages of each head, 1 or more
   */
  NearPart(LayerShape shape, List<Integer> heads, float[] query, int queryAt, int pages) {
    this.shape = shape;
    this.pages = pages;
    int perHead = shape.group() * shape.headDim();
    float[] rows = new float[heads.size() * perHead];
    for (int i = 0; i < heads.size(); i++) {
      System.arraycopy(query, queryAt + heads.get(i) * perHead, rows, i * perHead, perHead);
    }
    this.queries = new Queries(heads, shape.group(), shape.headDim(), rows);
    this.tokens = new long[pages];
    Arrays.fill(tokens, -1L);
    tokens[0] = shape.sinkTokens() == Long.SIZE ? 0 : -1L << shape.sinkTokens();
    int all = Residence.STREAMED.codes(shape.layout());
    this.at = HeadOffsets.inSlots(shape.layout(), all, 0, all);
  }

  /** (page, KV head) pairs. */
  int pairs() {
    return pages * queries.kvHeads().size();
  }

  /** Bytes that a fetch of them moves. */
  long bytes() {
    return (long) pairs() * shape.codesBytes(Residence.STREAMED);
  }

  /** Whether an answer is of all that was asked, and of numbers. */
  boolean isWhole(Attended answer) {
    long wanted = 0;
    for (long set : tokens) {
      wanted += Long.bitCount(set);
    }
    boolean numbers = answer.tokens() == wanted && answer.misses().isEmpty();
    for (float lse : answer.lse()) {
      numbers &= Float.isFinite(lse) || wanted == 0;
    }
    for (float x : answer.output()) {
      numbers &= Float.isFinite(x);
    }
    return numbers;
  }

  /** Merges an answer with what the device gave. */
  void merge(Attended answer, float[] output, int outputAt, float[] lse, int lseAt) {
    int group = shape.group();
    int headDim = shape.headDim();
    Partial partial = new Partial(headDim);
    for (int i = 0; i < queries.kvHeads().size(); i++) {
      for (int g = 0; g < group; g++) {
        int qHead = queries.kvHeads().get(i) * group + g;
        partial.clear();
        partial.merge(output, outputAt + qHead * headDim, 1, lse[lseAt + qHead]);
        int row = i * group + g;
        partial.merge(answer.output(), row * headDim, 1, answer.lse()[row]);
        System.arraycopy(partial.output(), 0, output, outputAt + qHead * headDim, headDim);
        lse[lseAt + qHead] = partial.lse();
      }
    }
  }

  // ---- comparing

  /** Has {@link #take} attend to fetched pages, for {@link #agrees}. */
  void compare() {
    fetched = new PageGroupAttention[queries.kvHeads().size()];
    int perHead = shape.group() * shape.headDim();
    for (int i = 0; i < fetched.length; i++) {
      fetched[i] = new PageGroupAttention(shape.group(), shape.headDim(), Kernels.best());
      fetched[i].begin(queries.rows(), i * perHead, false);
    }
  }

  /** A fetched page of a head; by rising page for each head. */
  void take(int page, int kvHead, DeviceSlot codes) {
    int head = queries.kvHeads().indexOf(kvHead);
    if (page < pages && head >= 0 && head < fetched.length) {
      fetched[head].attend(at, codes.address(), tokens[page]);
    }
  }

  /** Whether an answer is what the fetched pages give. */
  boolean agrees(Attended answer) {
    int group = shape.group();
    int headDim = shape.headDim();
    float[] output = new float[group * headDim];
    float[] lse = new float[group];
    boolean same = true;
    for (int i = 0; i < fetched.length; i++) {
      fetched[i].finish(output, 0, lse, 0);
      for (int g = 0; g < group; g++) {
        int row = i * group + g;
        double norm = 0;
        double difference = 0;
        for (int d = 0; d < headDim; d++) {
          norm += Math.pow(output[g * headDim + d], 2);
          difference +=
              Math.pow(output[g * headDim + d] - (double) answer.output()[row * headDim + d], 2);
        }
        // Written so that NaN is a difference.
        same &= difference <= OUTPUT_TOLERANCE * OUTPUT_TOLERANCE * norm;
        same &=
            lse[g] == answer.lse()[row]
                || Math.abs(lse[g] - answer.lse()[row])
                    <= LSE_TOLERANCE * Math.max(1, Math.abs(lse[g]));
      }
    }
    return same;
  }
}
