package io.kvtier.gpuworker.tornado;

import static io.kvtier.gpuworker.tornado.StepLayout.GROUP;

import io.kvtier.gpuworker.core.MassHistogram;
import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.math.TornadoMath;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/**
 * The choice of dominant tokens, as {@code TokenChooser} makes it: by a histogram of masses, the
 * fewest tokens that leave no more than allowed, earlier positions first where masses are in one
 * bucket. Work-groups meet only at a kernel's end, and a launch costs a round trip; so what is
 * needed of all chunks, and is little, each work-group works out for itself.
 */
final class ChoiceKernel {
  /** Marks a mass whose token is not to be had: a sink, or chosen already. */
  static final float TAKEN = -1f;

  /** What is left elsewhere is negligible below this part of what may be left: TokenChooser. */
  private static final float NEGLIGIBLE = .1f;

  /** Less of the whole is no rest: sums of so little come near to where fp32 ends. */
  private static final float REST_MIN = 1e-30f;

  private static final int BUCKETS = MassHistogram.BUCKETS;

  private ChoiceKernel() {}

  /**
   * One work-group a KV head and chunk: what all scores of each q head come to, every token's mass,
   * pooled over the group, and the chunk's histogram of them.
   *
   * @param scratch what the scan gave; receives {@code [qHeads][2]} log-sum-exps, each with the
   *     share of paged tokens, and {@code [kvHeads][tokens]} masses
   * @param partials each head's first is of its exact rows
   * @param histograms {@code [kvHeads][chunks][buckets]}, all 0 before
   */
  static void weigh(
      KernelContext context,
      IntArray ints,
      FloatArray floats,
      FloatArray scratch,
      FloatArray partials,
      IntArray histograms) {
    weighChunk(context, context.groupIdx, ints, floats, scratch, partials, histograms);
  }

  // TornadoVM does not inline what is a kernel itself.
  private static void weighChunk(
      KernelContext context,
      int workGroup,
      IntArray ints,
      FloatArray floats,
      FloatArray scratch,
      FloatArray partials,
      IntArray histograms) {
    int lane = context.localIdx;
    int chunks = ints.get(StepLayout.CHUNKS);
    int head = workGroup / chunks;
    int chunk = workGroup - head * chunks;
    int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
    int group = ints.get(StepLayout.Q_GROUP);
    int pages = ints.get(StepLayout.PAGES);
    int tokens = pages * GROUP;
    int page = chunk * ints.get(StepLayout.CHUNK_PAGES);
    int end = page + ints.get(StepLayout.CHUNK_PAGES);
    end = end < pages ? end : pages;
    int weights = ints.get(StepLayout.WEIGHTS_AT);
    int scanned = ints.get(own + StepLayout.PLANES) == 0 ? 0 : 1;
    end = scanned == 0 ? page : end;
    float[] shares = context.allocateFloatLocalArray(StepLayout.PADDED_QUERIES_MAX);
    for (int g = lane; g < group * scanned; g += GROUP) {
      int q = head * group + g;
      int blocks = ints.get(StepLayout.BLOCKS);
      int length = StepLayout.VALUES + 2 * ints.get(StepLayout.HEAD_DIM);
      int window = (ints.get(own + StepLayout.FIRST_SLOT) * blocks * 4 + g) * length;
      float other = floats.get(StepLayout.OTHER_LSES + head * blocks * 4 + g);
      float most = TornadoMath.max(partials.get(window + StepLayout.MAX), other);
      for (int i = 0; i < chunks; i++) {
        most = TornadoMath.max(most, scratch.get(StepLayout.STATS_AT + (q * chunks + i) * 2));
      }
      float exact =
          partials.get(window + StepLayout.SUM)
              * TornadoMath.exp(partials.get(window + StepLayout.MAX) - most);
      exact += other < StepLayout.NONE_AT_MOST ? 0f : TornadoMath.exp(other - most);
      float paged = 0f;
      for (int i = 0; i < chunks; i++) {
        int at = StepLayout.STATS_AT + (q * chunks + i) * 2;
        paged += scratch.get(at + 1) * TornadoMath.exp(scratch.get(at) - most);
      }
      float lse = most + TornadoMath.log(exact + paged);
      int stat = StepLayout.STATS_AT + (q * chunks + chunk) * 2;
      shares[g] = TornadoMath.exp(scratch.get(stat) - lse);
      if (chunk == 0) {
        scratch.set(StepLayout.LSES_AT + 2 * q, lse);
        scratch.set(StepLayout.LSES_AT + 2 * q + 1, paged / (exact + paged));
      }
    }
    context.localBarrier();
    int histogram = workGroup * BUCKETS;
    while (page < end) {
      int token = page * GROUP + lane;
      float mass = 0f;
      for (int g = 0; g < group; g++) {
        mass += scratch.get(weights + (head * group + g) * tokens + token) * shares[g];
      }
      mass = TornadoMath.min(1f, mass / group);
      if (token < ints.get(StepLayout.SINKS)) {
        mass = TAKEN;
      } else {
        context.atomicAdd(histograms, histogram + Coded.bucketOf(mass, floats), 1);
      }
      scratch.set(StepLayout.MASSES_AT + head * tokens + token, mass);
      page++;
    }
  }

  /**
   * {@link #weigh}, {@link #take} and {@link MergeKernel#merge} where a head's pages are one chunk:
   * its work-group needs nothing of the others.
   */
  static void finish(
      KernelContext context,
      IntArray arena,
      IntArray ints,
      FloatArray floats,
      FloatArray scratch,
      FloatArray partials,
      IntArray histograms,
      FloatArray result) {
    int head = context.groupIdx;
    weighChunk(context, head, ints, floats, scratch, partials, histograms);
    context.localBarrier();
    context.globalBarrier();
    takeChunk(context, head, arena, ints, floats, scratch, partials, histograms, result);
    context.localBarrier();
    context.globalBarrier();
    int queries = ints.get(StepLayout.BLOCKS) * 4;
    for (int query = 0; query < queries; query++) {
      MergeKernel.query(context, head * queries + query, ints, partials, result);
      context.localBarrier();
    }
  }

  /** 2: above the lowest bucket that is chosen from; 1: in it; 0: below. */
  static int rank(float mass, int lowest, FloatArray floats) {
    if (mass < 0f) {
      return 0;
    }
    int bucket = Coded.bucketOf(mass, floats);
    return bucket > lowest ? 2 : (bucket == lowest ? 1 : 0);
  }

  /**
   * One work-group a KV head and chunk: how many tokens are chosen, and from which bucket on;
   * writes down those of the chunk; then what was not chosen counts as its page's mean value, a
   * partial a block of queries, after the head's first.
   *
   * @param scratch what the scan and the weighing gave; masses that are chosen become {@link
   *     #TAKEN}; receives chosen tokens beyond {@link StepLayout#CHOSEN_NEAR}
   * @param partials receives one a head, block and chunk, after the head's first
   * @param result receives {@code [kvHeads]}: how many are chosen; and {@code [index][kvHeads][2]}
   *     from {@link StepLayout#CHOSEN_AT} on: position, rising with the index, and mass
   */
  static void take(
      KernelContext context,
      IntArray arena,
      IntArray ints,
      FloatArray floats,
      FloatArray scratch,
      FloatArray partials,
      IntArray histograms,
      FloatArray result) {
    takeChunk(
        context, context.groupIdx, arena, ints, floats, scratch, partials, histograms, result);
  }

  private static void takeChunk(
      KernelContext context,
      int workGroup,
      IntArray arena,
      IntArray ints,
      FloatArray floats,
      FloatArray scratch,
      FloatArray partials,
      IntArray histograms,
      FloatArray result) {
    int lane = context.localIdx;
    int kvHeads = ints.get(StepLayout.KV_HEADS);
    int chunks = ints.get(StepLayout.CHUNKS);
    int head = workGroup / chunks;
    int chunk = workGroup - head * chunks;
    int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
    int group = ints.get(StepLayout.Q_GROUP);
    int headDim = ints.get(StepLayout.HEAD_DIM);
    int pages = ints.get(StepLayout.PAGES);
    int tokens = pages * GROUP;
    int firstPage = chunk * ints.get(StepLayout.CHUNK_PAGES);
    int endPage = firstPage + ints.get(StepLayout.CHUNK_PAGES);
    endPage = endPage < pages ? endPage : pages;
    int scanned = ints.get(own + StepLayout.PLANES) == 0 ? 0 : 1;
    endPage = scanned == 0 ? firstPage : endPage;
    int[] inAll = context.allocateIntLocalArray(BUCKETS);
    int[] inEarlier = context.allocateIntLocalArray(BUCKETS);
    int[] limits = context.allocateIntLocalArray(4);
    int[] ranks = context.allocateIntLocalArray(GROUP);
    float[] weights = context.allocateFloatLocalArray(4 * GROUP);
    float[] sums = context.allocateFloatLocalArray(4 * 256);
    float[] pageTotals = context.allocateFloatLocalArray(4);
    float[] totals = context.allocateFloatLocalArray(4);
    float[] shares = context.allocateFloatLocalArray(4);
    for (int bucket = lane; bucket < BUCKETS * scanned; bucket += GROUP) {
      int earlier = 0;
      int all = 0;
      for (int i = 0; i < chunks; i++) {
        int count = histograms.get((head * chunks + i) * BUCKETS + bucket);
        all += count;
        earlier += i < chunk ? count : 0;
      }
      inAll[bucket] = all;
      inEarlier[bucket] = earlier;
    }
    context.localBarrier();
    if (lane == 0) {
      float allowed = floats.get(StepLayout.RESIDUAL_MASSES + head);
      float paged = 0f;
      for (int g = 0; g < group * scanned; g++) {
        paged += scratch.get(StepLayout.LSES_AT + (head * group + g) * 2 + 1);
      }
      int lowest = BUCKETS;
      int count = 0;
      int last = 0;
      int above = 0;
      if (paged / group > allowed * NEGLIGIBLE) {
        // From below: what is left is a sum of small numbers, and must not be a difference.
        float left = 0f;
        int leave = 0;
        int open = 1;
        while (open == 1 && leave < BUCKETS) {
          float more = inAll[leave] * Coded.middleOf(leave, floats);
          if (left + more <= allowed) {
            left = left + more;
            leave++;
          } else {
            open = 0;
          }
        }
        int min = ints.get(own + StepLayout.TOKENS_MIN);
        int max = ints.get(own + StepLayout.TOKENS_MAX);
        while (lowest > 0 && count < max && (count < min || lowest > leave)) {
          above += lowest < BUCKETS ? inEarlier[lowest] : 0;
          lowest--;
          last = inAll[lowest];
          count += last;
        }
        if (count > max) {
          last -= count - max;
          count = max;
        }
      }
      limits[0] = lowest;
      limits[1] = last;
      limits[2] = above;
      limits[3] = lowest < BUCKETS ? inEarlier[lowest] : 0;
      if (chunk == 0) {
        result.set(head, count);
      }
    }
    context.localBarrier();
    int lowestBucket = limits[0];
    int quota = limits[1];
    int aboveSoFar = limits[2];
    int atSoFar = limits[3];
    for (int page = firstPage; page < endPage; page++) {
      int token = page * GROUP + lane;
      float mass = scratch.get(StepLayout.MASSES_AT + head * tokens + token);
      int rank = rank(mass, lowestBucket, floats);
      ranks[lane] = rank;
      context.localBarrier();
      int aboveBefore = aboveSoFar;
      int atBefore = atSoFar;
      for (int t = 0; t < GROUP; t++) {
        int other = ranks[t];
        aboveSoFar += other == 2 ? 1 : 0;
        atSoFar += other == 1 ? 1 : 0;
        if (t < lane) {
          aboveBefore += other == 2 ? 1 : 0;
          atBefore += other == 1 ? 1 : 0;
        }
      }
      if (rank == 2 || (rank == 1 && atBefore < quota)) {
        int index = aboveBefore + (atBefore < quota ? atBefore : quota);
        int out = (index * kvHeads + head) * 2;
        if (out < StepLayout.CHOSEN_NEAR) {
          result.set(ints.get(StepLayout.CHOSEN_AT) + out, token);
          result.set(ints.get(StepLayout.CHOSEN_AT) + out + 1, mass);
        } else {
          int more = ints.get(StepLayout.MORE_CHOSEN_AT) + out - StepLayout.CHOSEN_NEAR;
          scratch.set(more, token);
          scratch.set(more + 1, mass);
        }
        scratch.set(StepLayout.MASSES_AT + head * tokens + token, TAKEN);
      }
      context.localBarrier();
    }
    int weightsAt = ints.get(StepLayout.WEIGHTS_AT);
    int blocks = ints.get(StepLayout.BLOCKS) * scanned;
    for (int block = 0; block < blocks; block++) {
      for (int i = lane; i < 4 * headDim; i += GROUP) {
        sums[i] = 0f;
      }
      if (lane < 4) {
        totals[lane] = 0f;
        int q = head * group + (block * 4 + lane < group ? block * 4 + lane : 0);
        shares[lane] =
            TornadoMath.exp(
                scratch.get(StepLayout.STATS_AT + (q * chunks + chunk) * 2)
                    - scratch.get(StepLayout.LSES_AT + 2 * q));
      }
      context.localBarrier();
      for (int page = firstPage; page < endPage; page++) {
        int token = page * GROUP + lane;
        float mass = scratch.get(StepLayout.MASSES_AT + head * tokens + token);
        for (int g = 0; g < 4; g++) {
          float weight = 0f;
          int q = block * 4 + g;
          if (mass >= 0f && q < group) {
            q += head * group;
            weight = scratch.get(weightsAt + q * tokens + token) * shares[g];
          }
          weights[g * GROUP + lane] = weight;
        }
        context.localBarrier();
        if (lane < 4) {
          float total = 0f;
          for (int t = 0; t < GROUP; t++) {
            total += weights[lane * GROUP + t];
          }
          pageTotals[lane] = total;
          totals[lane] += total;
        }
        context.localBarrier();
        int mean = arena.get(ints.get(own + StepLayout.SKETCH_TABLE) + page);
        mean += ints.get(own + StepLayout.VALUE_MEAN_AT) >> 2;
        for (int i = lane; i < headDim; i += GROUP) {
          float value = Coded.half(arena, mean, i);
          for (int g = 0; g < 4; g++) {
            sums[g * headDim + i] += pageTotals[g] * value;
          }
        }
        context.localBarrier();
      }
      int length = StepLayout.VALUES + 2 * headDim;
      int slot = ints.get(own + StepLayout.FIRST_SLOT) + 1 + chunk;
      int out = (slot * blocks + block) * 4 * length;
      for (int g = 0; g < 4; g++) {
        if (lane == 0) {
          int q = block * 4 + g;
          // Relative to all scores, chosen ones too: what is this small is nothing beside them.
          int some = totals[g] > REST_MIN && q < group ? 1 : 0;
          partials.set(
              out + g * length + StepLayout.MAX,
              some == 1
                  ? scratch.get(StepLayout.LSES_AT + (head * group + q) * 2)
                  : StepLayout.NONE);
          partials.set(out + g * length + StepLayout.SUM, some == 1 ? totals[g] : 0f);
        }
        for (int i = lane; i < headDim; i += GROUP) {
          partials.set(out + g * length + StepLayout.VALUES + i, 0f);
          partials.set(out + g * length + StepLayout.VALUES + headDim + i, sums[g * headDim + i]);
        }
      }
      context.localBarrier();
    }
  }
}
