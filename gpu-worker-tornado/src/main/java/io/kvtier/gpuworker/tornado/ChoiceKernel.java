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
 * bucket. One kernel a step, since work-groups meet only at a kernel's end.
 */
final class ChoiceKernel {
  /** Marks a mass whose token is not to be had: a sink, or chosen already. */
  static final float TAKEN = -1f;

  /** What is left elsewhere is negligible below this part of what may be left: TokenChooser. */
  private static final float NEGLIGIBLE = .1f;

  /** Less of the whole is no rest: sums of so little come near to where fp32 ends. */
  private static final float REST_MIN = 1e-30f;

  /** Chosen tokens' masses are counted in this. */
  static final float MASS_UNIT = 0x1p-30f;

  /** Where the chosen tokens begin, after {@code [kvHeads]} counts. */
  static final int CHOSEN = StepLayout.KV_HEADS_MAX;

  private static final int BUCKETS = MassHistogram.BUCKETS;

  private ChoiceKernel() {}

  /**
   * One thread a q head: what all its scores come to. Clears the histograms as well.
   *
   * @param lses receives {@code [qHeads][2]}: the log-sum-exp, and the share of paged tokens
   */
  static void share(
      KernelContext context,
      IntArray ints,
      FloatArray floats,
      FloatArray partials,
      FloatArray stats,
      FloatArray lses,
      IntArray histograms) {
    int kvHeads = ints.get(StepLayout.KV_HEADS);
    int group = ints.get(StepLayout.Q_GROUP);
    int threads = ints.get(StepLayout.QUERY_THREADS);
    for (int i = context.globalIdx; i < kvHeads * BUCKETS; i += threads) {
      histograms.set(i, 0);
    }
    int q = context.globalIdx;
    if (q < kvHeads * group) {
      int head = q / group;
      int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
      int blocks = ints.get(StepLayout.BLOCKS);
      int chunks = ints.get(StepLayout.CHUNKS);
      int length = StepLayout.VALUES + 2 * ints.get(StepLayout.HEAD_DIM);
      int slot = ints.get(own + StepLayout.FIRST_SLOT);
      int window = (slot * blocks * 4 + q - head * group) * length;
      int padded = head * blocks * 4 + q - head * group;
      float other = floats.get(StepLayout.OTHER_LSES + padded);
      float most = TornadoMath.max(partials.get(window + StepLayout.MAX), other);
      int scanned = ints.get(own + StepLayout.PLANES) == 0 ? 0 : chunks;
      for (int chunk = 0; chunk < scanned; chunk++) {
        most = TornadoMath.max(most, stats.get((q * chunks + chunk) * 2));
      }
      float exact =
          partials.get(window + StepLayout.SUM)
              * TornadoMath.exp(partials.get(window + StepLayout.MAX) - most);
      exact += other < StepLayout.NONE_AT_MOST ? 0f : TornadoMath.exp(other - most);
      float paged = 0f;
      for (int chunk = 0; chunk < scanned; chunk++) {
        int at = (q * chunks + chunk) * 2;
        paged += stats.get(at + 1) * TornadoMath.exp(stats.get(at) - most);
      }
      lses.set(2 * q, most + TornadoMath.log(exact + paged));
      lses.set(2 * q + 1, paged / (exact + paged));
    }
  }

  /**
   * One work-group a KV head and chunk: every token's mass, pooled over the group, and the
   * histogram of them.
   *
   * @param masses receives {@code [kvHeads][tokens]}
   */
  static void weigh(
      KernelContext context,
      IntArray ints,
      FloatArray constants,
      FloatArray scores,
      FloatArray lses,
      FloatArray masses,
      IntArray histograms) {
    int lane = context.localIdx;
    int chunks = ints.get(StepLayout.CHUNKS);
    int head = context.groupIdx / chunks;
    int chunk = context.groupIdx - head * chunks;
    int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
    int group = ints.get(StepLayout.Q_GROUP);
    int pages = ints.get(StepLayout.PAGES);
    int tokens = pages * GROUP;
    int page = chunk * ints.get(StepLayout.CHUNK_PAGES);
    int end = page + ints.get(StepLayout.CHUNK_PAGES);
    end = end < pages ? end : pages;
    end = ints.get(own + StepLayout.PLANES) == 0 ? page : end;
    while (page < end) {
      int token = page * GROUP + lane;
      float mass = 0f;
      for (int g = 0; g < group; g++) {
        int q = head * group + g;
        mass += TornadoMath.exp(scores.get(q * tokens + token) - lses.get(2 * q));
      }
      mass = TornadoMath.min(1f, mass / group);
      if (token < ints.get(StepLayout.SINKS)) {
        mass = TAKEN;
      } else {
        context.atomicAdd(histograms, head * BUCKETS + Coded.bucketOf(mass, constants), 1);
      }
      masses.set(head * tokens + token, mass);
      page++;
    }
  }

  /**
   * One thread a KV head: how many are chosen, and from which bucket on.
   *
   * @param limits receives {@code [kvHeads][2]}: the lowest bucket, and how many of it
   * @param chosen receives {@code [kvHeads]} from 0 on: how many are chosen
   */
  static void limit(
      KernelContext context,
      IntArray ints,
      FloatArray floats,
      FloatArray constants,
      FloatArray lses,
      IntArray histograms,
      IntArray limits,
      IntArray chosen) {
    int head = context.globalIdx;
    if (head < ints.get(StepLayout.KV_HEADS)) {
      int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
      int group = ints.get(StepLayout.Q_GROUP);
      int histogram = head * BUCKETS;
      float allowed = floats.get(StepLayout.RESIDUAL_MASSES + head);
      float total = 0f;
      for (int g = 0; g < group; g++) {
        total += lses.get((head * group + g) * 2 + 1);
      }
      total = total / group;
      int lowest = BUCKETS;
      int count = 0;
      int last = 0;
      if (ints.get(own + StepLayout.PLANES) != 0 && total > allowed * NEGLIGIBLE) {
        // From below: what is left is a sum of small numbers, and must not be a difference.
        float left = 0f;
        int leave = 0;
        int open = 1;
        while (open == 1 && leave < BUCKETS) {
          float more = histograms.get(histogram + leave) * Coded.middleOf(leave, constants);
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
          lowest--;
          last = histograms.get(histogram + lowest);
          count += last;
        }
        if (count > max) {
          last -= count - max;
          count = max;
        }
      }
      limits.set(2 * head, lowest);
      limits.set(2 * head + 1, last);
      chosen.set(head, count);
    }
  }

  /** 2: above the lowest bucket that is chosen from; 1: in it; 0: below. */
  static int rank(float mass, int lowest, FloatArray constants) {
    if (mass < 0f) {
      return 0;
    }
    int bucket = Coded.bucketOf(mass, constants);
    return bucket > lowest ? 2 : (bucket == lowest ? 1 : 0);
  }

  /**
   * One work-group a KV head and chunk: how many of its tokens are above and in the lowest bucket.
   *
   * @param counts receives {@code [kvHeads][chunks][2]}
   */
  static void count(
      KernelContext context,
      IntArray ints,
      FloatArray constants,
      FloatArray masses,
      IntArray limits,
      IntArray counts) {
    int lane = context.localIdx;
    int chunks = ints.get(StepLayout.CHUNKS);
    int head = context.groupIdx / chunks;
    int chunk = context.groupIdx - head * chunks;
    int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
    int pages = ints.get(StepLayout.PAGES);
    int page = chunk * ints.get(StepLayout.CHUNK_PAGES);
    int end = page + ints.get(StepLayout.CHUNK_PAGES);
    end = end < pages ? end : pages;
    end = ints.get(own + StepLayout.PLANES) == 0 ? page : end;
    int lowest = limits.get(2 * head);
    int[] found = context.allocateIntLocalArray(2 * GROUP);
    int above = 0;
    int at = 0;
    while (page < end) {
      float mass = masses.get((head * pages + page) * GROUP + lane);
      int rank = rank(mass, lowest, constants);
      above += rank == 2 ? 1 : 0;
      at += rank == 1 ? 1 : 0;
      page++;
    }
    found[lane] = above;
    found[GROUP + lane] = at;
    context.localBarrier();
    if (lane < 2) {
      int sum = 0;
      for (int t = 0; t < GROUP; t++) {
        sum += found[lane * GROUP + t];
      }
      counts.set(context.groupIdx * 2 + lane, sum);
    }
  }

  /**
   * One work-group a KV head and chunk: writes the chosen tokens down, and marks them {@link
   * #TAKEN}.
   *
   * @param chosen receives {@code [index][kvHeads][2]} from {@link #CHOSEN} on: position, rising
   *     with the index, and mass
   */
  static void collect(
      KernelContext context,
      IntArray ints,
      FloatArray constants,
      FloatArray masses,
      IntArray limits,
      IntArray counts,
      IntArray chosen) {
    int lane = context.localIdx;
    int kvHeads = ints.get(StepLayout.KV_HEADS);
    int chunks = ints.get(StepLayout.CHUNKS);
    int head = context.groupIdx / chunks;
    int chunk = context.groupIdx - head * chunks;
    int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
    int pages = ints.get(StepLayout.PAGES);
    int page = chunk * ints.get(StepLayout.CHUNK_PAGES);
    int end = page + ints.get(StepLayout.CHUNK_PAGES);
    end = end < pages ? end : pages;
    end = ints.get(own + StepLayout.PLANES) == 0 ? page : end;
    int lowest = limits.get(2 * head);
    int quota = limits.get(2 * head + 1);
    int[] ranks = context.allocateIntLocalArray(GROUP);
    int above = 0;
    int at = 0;
    for (int before = 0; before < chunk; before++) {
      above += counts.get((head * chunks + before) * 2);
      at += counts.get((head * chunks + before) * 2 + 1);
    }
    while (page < end) {
      int token = page * GROUP + lane;
      float mass = masses.get(head * pages * GROUP + token);
      int rank = rank(mass, lowest, constants);
      ranks[lane] = rank;
      context.localBarrier();
      int aboveBefore = above;
      int atBefore = at;
      for (int t = 0; t < GROUP; t++) {
        int other = ranks[t];
        above += other == 2 ? 1 : 0;
        at += other == 1 ? 1 : 0;
        if (t < lane) {
          aboveBefore += other == 2 ? 1 : 0;
          atBefore += other == 1 ? 1 : 0;
        }
      }
      if (rank == 2 || (rank == 1 && atBefore < quota)) {
        int index = aboveBefore + (atBefore < quota ? atBefore : quota);
        int out = CHOSEN + (index * kvHeads + head) * 2;
        chosen.set(out, token);
        chosen.set(out + 1, (int) (mass / MASS_UNIT));
        masses.set(head * pages * GROUP + token, TAKEN);
      }
      context.localBarrier();
      page++;
    }
  }

  /**
   * One work-group a KV head, block of queries and chunk: what was not chosen counts as its page's
   * mean value. A partial each, after the head's first.
   */
  static void rest(
      KernelContext context,
      IntArray arena,
      IntArray ints,
      FloatArray scores,
      FloatArray lses,
      FloatArray masses,
      FloatArray partials) {
    int lane = context.localIdx;
    int headDim = ints.get(StepLayout.HEAD_DIM);
    int blocks = ints.get(StepLayout.BLOCKS);
    int chunks = ints.get(StepLayout.CHUNKS);
    int headBlock = context.groupIdx / chunks;
    int chunk = context.groupIdx - headBlock * chunks;
    int head = headBlock / blocks;
    int group = ints.get(StepLayout.Q_GROUP);
    int block = headBlock - head * blocks;
    int own = StepLayout.HEADS + head * StepLayout.HEAD_INTS;
    int pages = ints.get(StepLayout.PAGES);
    int tokens = pages * GROUP;
    int page = chunk * ints.get(StepLayout.CHUNK_PAGES);
    int end = page + ints.get(StepLayout.CHUNK_PAGES);
    end = end < pages ? end : pages;
    end = ints.get(own + StepLayout.PLANES) == 0 ? page : end;
    float[] weights = context.allocateFloatLocalArray(4 * GROUP);
    float[] sums = context.allocateFloatLocalArray(4 * 256);
    float[] pageTotals = context.allocateFloatLocalArray(4);
    float[] totals = context.allocateFloatLocalArray(4);
    for (int i = lane; i < 4 * headDim; i += GROUP) {
      sums[i] = 0f;
    }
    if (lane < 4) {
      totals[lane] = 0f;
    }
    context.localBarrier();
    while (page < end) {
      int token = page * GROUP + lane;
      float mass = masses.get(head * tokens + token);
      for (int g = 0; g < 4; g++) {
        float weight = 0f;
        int q = block * 4 + g;
        if (mass >= 0f && q < group) {
          q += head * group;
          weight = TornadoMath.exp(scores.get(q * tokens + token) - lses.get(2 * q));
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
      page++;
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
            some == 1 ? lses.get((head * group + q) * 2) : StepLayout.NONE);
        partials.set(out + g * length + StepLayout.SUM, some == 1 ? totals[g] : 0f);
      }
      for (int i = lane; i < headDim; i += GROUP) {
        partials.set(out + g * length + StepLayout.VALUES + i, 0f);
        partials.set(out + g * length + StepLayout.VALUES + headDim + i, sums[g * headDim + i]);
      }
    }
  }
}
