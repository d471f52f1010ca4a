package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.invalid;
import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.Rescore;
import io.kvtier.gpuworker.device.CodesTaker;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.session.CodesFetcher.PageHead;
import io.kvtier.gpuworker.session.SessionReader.HeadRows;
import io.kvtier.page.Residence;
import io.kvtier.page.TokenRows;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.stream.IntStream;
import org.agrona.MutableDirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Finds what dominates a query's attention in one layer, for engines that attend themselves: the
 * exact tokens, then those of most mass, by their full codes, among the candidates that a sketch
 * finds. One call, one thread; the caller holds the layer's lock.
 */
final class Gatherer {
  private static final int STAGING_SLOTS = 64;
  private static final float RESIDUAL_MASS = .01f;
  private static final int TOKENS_MIN = 64;
  private static final int CANDIDATES_MAX = 1 << 20;

  private final LayerShape shape;
  private final DeviceLayer device;
  private final StepFetches fetches;
  private final float[] query;
  private final int tokensMax;
  private final boolean asPlanned;
  private final int[] exact;
  private final Candidates[] heads;

  /** One head's rows: the exact tokens, then the candidates. */
  private final class Candidates {
    final int kvHead;
    final int[] positions;
    final float[][] scores;

    /** {@code [rows][headDim]}; empty where there are too many to keep. */
    final float[] keys;

    final float[] values;

    Candidates(int kvHead, LayerPass pass) {
      this.kvHead = kvHead;
      int rows = exact.length + pass.chosenCount(kvHead);
      positions = Arrays.copyOf(exact, rows);
      for (int i = exact.length; i < rows; i++) {
        positions[i] = pass.chosenPosition(kvHead, i - exact.length);
      }
      Residence residence = device.residence(kvHead);
      boolean keep =
          residence == Residence.DENSE
              || (residence != Residence.STREAMED && Residence.finer(shape.layout()) == 0);
      scores = new float[shape.group()][rows];
      keys = new float[keep ? rows * shape.headDim() : 0];
      values = new float[keys.length];
    }

    /** Scores a row and keeps it if rows are kept. */
    void take(int row, float[] key, float[] value) {
      int headDim = shape.headDim();
      for (int g = 0; g < scores.length; g++) {
        int at = (kvHead * scores.length + g) * headDim;
        float sum = 0;
        for (int i = 0; i < headDim; i++) {
          sum += query[at + i] * key[i];
        }
        scores[g][row] = sum / (float) Math.sqrt(headDim);
      }
      if (keys.length > 0) {
        System.arraycopy(key, 0, keys, row * headDim, headDim);
        System.arraycopy(value, 0, values, row * headDim, headDim);
      }
    }
  }

  /**
   * Gathers for one query.
   *
   * @param tokensMax most tokens a head, exact ones included
   * @param asPlanned as many as a step would choose under the plan, and no more
   */
  Gatherer(
      SessionLayer target,
      LayerShape shape,
      StepFetches fetches,
      float[] query,
      int tokensMax,
      boolean asPlanned,
      int layer) {
    this.shape = shape;
    this.device = target.device;
    this.fetches = fetches;
    this.query = query;
    this.tokensMax = tokensMax;
    this.asPlanned = asPlanned;
    if (device.tokens() == 0) {
      throw invalid("layer %d has no tokens", layer);
    }
    this.exact =
        IntStream.range(0, device.tokens())
            .map(i -> device.tokens() - 1 - i)
            .filter(device::isExact)
            .limit(tokensMax)
            .toArray();
    LayerPass pass = device.newPass(policies(target.policies));
    pass.choose(query, 0, new float[0], new float[0], 0);
    pass.release();
    this.heads = new Candidates[shape.kvHeads()];
    Arrays.setAll(heads, head -> new Candidates(head, pass));
    float[] key = new float[shape.headDim()];
    float[] value = new float[shape.headDim()];
    for (Candidates head : heads) {
      for (int row = 0; row < exact.length; row++) {
        device.readRow(head.kvHead, exact[row], null, key, value, 0);
        head.take(row, key, value);
      }
    }
    takeDense(pass, key, value);
    try (Staging.Lease lease = fetches.staging().lease(STAGING_SLOTS)) {
      DeviceSlot scratch = lease.memory().allocate(shape.codesBytes(Residence.ONE_PLANE));
      // Rows have four bits; what these leave counts as nothing until those chosen are read again.
      scratch.buffer().setMemory(0, scratch.length(), (byte) 0);
      try {
        Taker taker = new Taker(pass, scratch, key, value);
        fetches.give(target, taker, device.pageKeys(), lease, StepNear.NOTHING);
      } finally {
        scratch.release();
      }
    }
  }

  /** Dense heads have all codes on the device. */
  private void takeDense(LayerPass pass, float[] key, float[] value) {
    for (Candidates head : heads) {
      int count =
          device.residence(head.kvHead) == Residence.DENSE ? pass.chosenCount(head.kvHead) : 0;
      for (int i = 0; i < count; i++) {
        int position = pass.chosenPosition(head.kvHead, i);
        DeviceSlot codes = device.codes(head.kvHead).get(position / TOKENS);
        device.readRow(head.kvHead, position, codes, key, value, 0);
        head.take(exact.length + i, key, value);
      }
    }
  }

  /** Decodes rows and pages as they come. */
  private final class Taker implements CodesTaker {
    private final LayerPass pass;

    /** Of the form of a page's codes. */
    private final DeviceSlot scratch;

    private final float[] key;
    private final float[] value;
    private final MutableDirectBuffer row = new UnsafeBuffer(new byte[shape.rowForm().bytes()]);
    private final BitSet[] taken;

    Taker(LayerPass pass, DeviceSlot scratch, float[] key, float[] value) {
      this.pass = pass;
      this.scratch = scratch;
      this.key = key;
      this.value = value;
      this.taken = new BitSet[shape.kvHeads()];
      Arrays.setAll(taken, head -> new BitSet());
    }

    @Override
    public int rowSections(int kvHead) {
      return device.residence(kvHead) == Residence.DENSE ? 0 : pass.rowSections(kvHead);
    }

    @Override
    public boolean streams(int kvHead) {
      return pass.streams(kvHead);
    }

    @Override
    public int chosenCount(int kvHead) {
      return pass.chosenCount(kvHead);
    }

    @Override
    public int chosenPosition(int kvHead, int index) {
      return pass.chosenPosition(kvHead, index);
    }

    @Override
    public void giveRow(int kvHead, int index, DeviceSlot rows, int offset) {
      if (!taken[kvHead].get(index)) {
        taken[kvHead].set(index);
        int position = chosenPosition(kvHead, index);
        TokenRows fetched = fetches.rowFetcher().rowsOf(rowSections(kvHead));
        long address = rows.address() + offset;
        shape.rowForm().copyFetched(address, fetched.sectionSet(), row, 0);
        fetched.put(row, 0, position % TOKENS, scratch.buffer(), 0);
        device.readRow(kvHead, position, scratch, key, value, 0);
        heads[kvHead].take(exact.length + index, key, value);
      }
    }

    @Override
    public int attendedCount(int kvHead) {
      return taken[kvHead].nextClearBit(0);
    }

    @Override
    public void attendPages(int[] pages, int[] kvHeads, DeviceSlot[] codes, int count) {
      for (int i = 0; i < count; i++) {
        takePage(kvHeads[i], pages[i], codes[i], key, value);
      }
    }

    /** A row is taken when it is given. */
    @Override
    public void attendRows() {}

    @Override
    public void forgetRows() {}

    @Override
    public void attendResident() {}
  }

  /** Every head chooses by its sketch here, if it has one: the engine wants dominant tokens. */
  private List<HeadPolicy> policies(List<HeadPolicy> planned) {
    List<HeadPolicy> policies = new ArrayList<>();
    for (int head = 0; head < shape.kvHeads(); head++) {
      Residence residence = device.residence(head);
      if (residence == Residence.STREAMED) {
        policies.add(HeadPolicy.STREAMED);
      } else if (!asPlanned) {
        long wanted = Math.max(1, tokensMax - exact.length);
        int candidates =
            (int) Math.min(CANDIDATES_MAX, wanted * Rescore.factor(residence.planes()));
        policies.add(sketched(residence, candidates, candidates, 0));
      } else if (planned.get(head).sketched()) {
        policies.add(planned.get(head));
      } else {
        policies.add(
            sketched(
                residence,
                Math.min(TOKENS_MIN, tokensMax),
                tokensMax,
                RESIDUAL_MASS * Sessions.residualAim(residence)));
      }
    }
    return policies;
  }

  private static HeadPolicy sketched(Residence residence, int min, int max, float residual) {
    Residence chosenBy = residence == Residence.DENSE ? Residence.TWO_PLANES : residence;
    return new HeadPolicy(chosenBy, min, max, residual);
  }

  private void takePage(int kvHead, int page, DeviceSlot codes, float[] key, float[] value) {
    Candidates head = heads[kvHead];
    int from = Arrays.binarySearch(head.positions, exact.length, rows(head), page * TOKENS);
    for (int row = from < 0 ? -from - 1 : from;
        row < rows(head) && head.positions[row] / TOKENS == page;
        row++) {
      device.readRow(kvHead, head.positions[row], codes, key, value, 0);
      head.take(row, key, value);
    }
  }

  private static int rows(Candidates head) {
    return head.positions.length;
  }

  /** Exact tokens from the latest back, then candidates by falling mass. */
  List<HeadRows> rows() {
    List<HeadRows> all = new ArrayList<>();
    for (Candidates head : heads) {
      float[] masses = Rescore.masses(head.scores, rows(head));
      int[] best = Rescore.largest(masses, exact.length, rows(head), tokensMax - exact.length);
      int[] chosen =
          IntStream.concat(IntStream.range(0, exact.length), IntStream.of(best)).toArray();
      all.add(head.keys.length > 0 ? kept(head, chosen) : readAgain(head, chosen));
    }
    return all;
  }

  private HeadRows empty(Candidates head, int[] chosen) {
    int[] positions = IntStream.of(chosen).map(row -> head.positions[row]).toArray();
    int length = chosen.length * shape.headDim();
    return new HeadRows(positions, new float[length], new float[length]);
  }

  private HeadRows kept(Candidates head, int[] chosen) {
    HeadRows rows = empty(head, chosen);
    int headDim = shape.headDim();
    for (int i = 0; i < chosen.length; i++) {
      int from = chosen[i] * headDim;
      System.arraycopy(head.keys, from, rows.keys(), i * headDim, headDim);
      System.arraycopy(head.values, from, rows.values(), i * headDim, headDim);
    }
    return rows;
  }

  /**
   * A streamed head's candidates are all its tokens, and of others' finer codes none have come:
   * those chosen are fetched once more.
   */
  private HeadRows readAgain(Candidates head, int[] chosen) {
    HeadRows rows = empty(head, chosen);
    int headDim = shape.headDim();
    for (int i = 0; i < exact.length; i++) {
      device.readRow(head.kvHead, exact[i], null, rows.keys(), rows.values(), i * headDim);
    }
    int[] pages =
        IntStream.range(exact.length, chosen.length)
            .map(i -> rows.positions()[i] / TOKENS)
            .distinct()
            .sorted()
            .toArray();
    try (Staging.Lease lease = fetches.staging().lease(STAGING_SLOTS)) {
      for (int from = 0; from < pages.length; from += lease.slots()) {
        int to = Math.min(pages.length, from + lease.slots());
        readAgain(head, Arrays.copyOfRange(pages, from, to), lease, rows);
      }
    }
    return rows;
  }

  private void readAgain(Candidates head, int[] batch, Staging.Lease lease, HeadRows rows) {
    int sections = device.residence(head.kvHead).codes(shape.layout());
    List<DeviceSlot> slots =
        fetches
            .codesFetcher()
            .fetch(
                IntStream.of(batch)
                    .mapToObj(page -> new PageHead(page, head.kvHead, sections))
                    .toList(),
                device.pageKeys(),
                lease.memory()::allocate);
    for (int i = exact.length; i < rows.positions().length; i++) {
      int slot = Arrays.binarySearch(batch, rows.positions()[i] / TOKENS);
      if (slot >= 0) {
        device.readRow(
            head.kvHead,
            rows.positions()[i],
            slots.get(slot),
            rows.keys(),
            rows.values(),
            i * shape.headDim());
      }
    }
    slots.forEach(DeviceSlot::release);
  }
}
