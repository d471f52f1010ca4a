package io.kvtier.gpuworker.tornado;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.Partial;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import uk.ac.manchester.tornado.api.TornadoExecutionResult;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;

/**
 * A pass on a lane. Nothing of it stays on the device between calls: what a graph has merged comes
 * back, some kilobytes, and is merged here with what other graphs gave, in an order that does not
 * depend on what came when. So passes of any number of layers take turns on a lane.
 */
final class TornadoPass implements LayerPass {
  /** Positions come back as floats, which count up to this. */
  private static final int POSITIONS_MAX = 1 << 24;

  private final TornadoLayer layer;
  private final LayerShape shape;
  private final List<HeadPolicy> policies;
  private final Lane lane;

  /** Heads that are served together. */
  private final List<StepInputs> ranges;

  private final GroupQuery[] queries;

  /** By q head: what is resident, then what comes. */
  private final Partial[] resident;

  private final Partial[] coded;
  private final NewRows newRows;
  private final StagedRows rows;
  private final StagedPages pages;
  private final boolean[] streamed;
  private final int[] chosenCounts;

  /** {@code [index][heads][2]}: position and mass, as they came of a range. */
  private float[] chosen = new float[0];

  /** By KV head, and index of the chosen token. */
  private final int[][] positions;

  private final float[][] masses;

  private final float[] rotated;
  private final float[] values;
  private final float[] otherLses;
  private boolean begun;
  private boolean residentDone;

  TornadoPass(TornadoLayer layer, List<HeadPolicy> policies) {
    this.layer = layer;
    this.shape = layer.shape();
    this.policies = policies;
    this.lane = layer.lane();
    this.ranges = StepInputs.of(layer, policies);
    this.queries = new GroupQuery[shape.kvHeads()];
    Arrays.setAll(queries, head -> new GroupQuery(shape.group(), shape.headDim()));
    this.resident = partials();
    this.coded = partials();
    this.newRows = new NewRows(shape);
    this.rows = new StagedRows(layer, ranges, policies);
    this.pages = new StagedPages(layer, ranges);
    this.streamed = new boolean[shape.kvHeads()];
    for (int head = 0; head < streamed.length; head++) {
      streamed[head] = policies.get(head).streamed();
    }
    this.chosenCounts = new int[shape.kvHeads()];
    this.positions = new int[shape.kvHeads()][0];
    this.masses = new float[shape.kvHeads()][0];
    this.rotated = new float[shape.headDim()];
    this.values = new float[shape.headDim()];
    this.otherLses = new float[shape.qHeads()];
  }

  private Partial[] partials() {
    Partial[] partials = new Partial[shape.qHeads()];
    Arrays.setAll(partials, q -> new Partial(shape.headDim()));
    return partials;
  }

  private boolean sketched(int kvHead) {
    return policies.get(kvHead).sketched() && layer.pages() > 0;
  }

  private boolean anySketched() {
    for (int head = 0; head < shape.kvHeads(); head++) {
      if (sketched(head)) {
        return true;
      }
    }
    return false;
  }

  @Override
  public void choose(
      float[] query, int queryAt, float[] newKeys, float[] newValues, int newTokens) {
    for (int head = 0; head < queries.length; head++) {
      int at = queryAt + head * shape.group() * shape.headDim();
      queries[head].load(query, at, sketched(head), Kernels.best());
    }
    for (int q = 0; q < shape.qHeads(); q++) {
      resident[q].clear();
      coded[q].clear();
    }
    newRows.attend(queries, newKeys, newValues, newTokens, resident);
    Arrays.fill(chosenCounts, 0);
    residentDone = anySketched();
    if (residentDone) {
      requireScores();
      lane.on(() -> {
        for (int q = 0; q < otherLses.length; q++) {
          otherLses[q] = resident[q].isEmpty() ? StepLayout.NONE : resident[q].lse();
        }
        ranges.forEach(this::executeChoice);
        return this;
      });
    }
    rows.begin(chosenCounts, positions);
    pages.begin();
    begun = true;
  }

  /** Chooses, and attends to all that is resident; on the lane's thread. */
  private void executeChoice(StepInputs inputs) {
    inputs.begin(layer.pages());
    if (lane.hasFewUnits()) {
      inputs.inOneChunk();
    }
    describeResident(inputs);
    for (int head = inputs.firstHead(); head < inputs.endHead(); head++) {
      if (sketched(head)) {
        inputs.scan(head, lane.chosenMax() / inputs.heads());
      }
    }
    inputs.write(lane, lane.choice, 1);
    inputs.writeQueries(lane, queries);
    inputs.writeChoice(lane, queries, otherLses);
    TornadoExecutionResult executed = lane.execute(Lane.Graph.CHOOSE);
    readChosen(inputs, executed);
    readMerged(inputs, lane.result, resident);
  }

  /** Exact rows of all heads, pages of dense ones, and room for what others leave. */
  private void describeResident(StepInputs inputs) {
    inputs.exactRows();
    int slots = 1 + inputs.chunks();
    for (int head = inputs.firstHead(); head < inputs.endHead(); head++) {
      boolean dense = policies.get(head).dense() && layer.pages() > 0;
      inputs.setSlots(head, slots, dense || sketched(head) ? slots : 1);
      if (dense) {
        inputs.dense(head);
      }
    }
  }

  private void requireScores() {
    int tokens = layer.pages() * TOKENS;
    int qHeads = ranges.getFirst().heads() * shape.group();
    long scores = (long) qHeads * tokens;
    if (scores > lane.scoresMax || tokens > POSITIONS_MAX) {
      throw new KvtierException(
          Code.EXHAUSTED,
          ("%d tokens of %d q heads make %d scores, and the device keeps %d at most, of %d tokens;"
                  + " start the worker with more device bytes")
              .formatted(tokens, qHeads, scores, lane.scoresMax, POSITIONS_MAX));
    }
  }

  private void readChosen(StepInputs inputs, TornadoExecutionResult executed) {
    int most = 0;
    for (int head = inputs.firstHead(); head < inputs.endHead(); head++) {
      chosenCounts[head] = (int) lane.result.get(head - inputs.firstHead());
      most = Math.max(most, chosenCounts[head]);
    }
    int length = 2 * most * inputs.heads();
    int near = Math.min(length, StepLayout.CHOSEN_NEAR);
    chosen = chosen.length < length ? new float[length + length / 2] : chosen;
    copy(lane.result.getSegment(), inputs.chosenAt(), chosen, 0, near);
    if (length > near) {
      lane.downloadMore(executed, length - near);
      copy(lane.scratch.getSegment(), lane.moreChosenAt(), chosen, near, length - near);
    }
    for (int head = inputs.firstHead(); head < inputs.endHead(); head++) {
      sortOut(head, 2 * (head - inputs.firstHead()), 2 * inputs.heads());
    }
  }

  /** Takes a head's chosen tokens out of all of them: they are gone through more than once. */
  private void sortOut(int kvHead, int first, int stride) {
    int count = chosenCounts[kvHead];
    if (positions[kvHead].length < count) {
      positions[kvHead] = new int[count + count / 2];
      masses[kvHead] = new float[count + count / 2];
    }
    int[] position = positions[kvHead];
    float[] mass = masses[kvHead];
    for (int i = 0; i < count; i++) {
      int at = first + i * stride;
      position[i] = (int) chosen[at];
      mass[i] = chosen[at + 1];
    }
  }

  private static void copy(MemorySegment from, int at, float[] to, int toAt, int length) {
    MemorySegment.copy(from, ValueLayout.JAVA_FLOAT, (long) at * Float.BYTES, to, toAt, length);
  }

  /** Merges what a graph has merged for every q head of a range. */
  private void readMerged(StepInputs inputs, FloatArray from, Partial[] into) {
    int headDim = shape.headDim();
    int length = StepLayout.partialLength(headDim);
    // Once: each call makes a segment.
    MemorySegment all = from.getSegment();
    for (int head = inputs.firstHead(); head < inputs.endHead(); head++) {
      for (int g = 0; g < shape.group(); g++) {
        int at = StepLayout.MERGED_AT + inputs.padded(head, g) * length;
        float lse = from.get(at + StepLayout.MAX);
        if (lse < StepLayout.NONE_AT_MOST) {
          continue;
        }
        copy(all, at + StepLayout.VALUES + headDim, values, 0, headDim);
        if (!policies.get(head).sketched()) {
          // Of sketched heads exact rows and pages' means are merged alone, which are plain.
          copy(all, at + StepLayout.VALUES, rotated, 0, headDim);
          queries[head].rotateBack(rotated, 0);
          for (int i = 0; i < headDim; i++) {
            values[i] += rotated[i];
          }
        }
        into[head * shape.group() + g].merge(values, 0, 1, lse);
      }
    }
  }

  @Override
  public int rowSections(int kvHead) {
    return policies.get(kvHead).residence().rows();
  }

  @Override
  public boolean streams(int kvHead) {
    return streamed[kvHead];
  }

  @Override
  public void skipPages(int kvHead, int pageCount) {
    pages.skip(kvHead, pageCount);
  }

  @Override
  public int chosenCount(int kvHead) {
    return streams(kvHead)
        ? Math.max(0, layer.pages() * TOKENS - layer.sinkCount())
        : chosenCounts[kvHead];
  }

  @Override
  public int chosenPosition(int kvHead, int index) {
    return streams(kvHead) ? layer.sinkCount() + index : positions[kvHead][index];
  }

  @Override
  public float chosenMass(int kvHead, int index) {
    return streams(kvHead) ? 0 : masses[kvHead][index];
  }

  @Override
  public int chosenTotal() {
    int total = 0;
    for (int head = 0; head < shape.kvHeads(); head++) {
      total += chosenCount(head);
    }
    return total;
  }

  @Override
  public void giveRow(int kvHead, int index, DeviceSlot slot, int offset) {
    rows.give(kvHead, index, slot, offset);
  }

  @Override
  public void forgetRows() {
    rows.forget();
  }

  @Override
  public void attendRows() {
    rows.take();
    while (rows.stageReady()) {
      lane.on(() -> {
        rows.execute(queries, coded);
        return this;
      });
      rows.take();
    }
  }

  @Override
  public int attendedCount(int kvHead) {
    return streams(kvHead)
        ? Math.max(0, pages.attended(kvHead) * TOKENS - layer.sinkCount())
        : rows.attended(kvHead);
  }

  @Override
  public void attendPages(int[] pageIndices, int[] kvHeads, DeviceSlot[] codes, int count) {
    for (int i = 0; i < count; i++) {
      pages.give(kvHeads[i], pageIndices[i], codes[i]);
      while (pages.stageReady(kvHeads[i])) {
        lane.on(() -> {
          readMerged(pages.execute(queries), lane.merged, coded);
          return this;
        });
      }
    }
  }

  @Override
  public void attendResident() {
    if (residentDone || !begun) {
      return;
    }
    residentDone = true;
    lane.on(() -> {
      ranges.forEach(this::executeResident);
      return this;
    });
  }

  private void executeResident(StepInputs inputs) {
    inputs.begin(layer.pages());
    describeResident(inputs);
    inputs.write(lane, lane.ints, 1);
    inputs.writeQueries(lane, queries);
    var _ = lane.execute(Lane.Graph.RESIDENT);
    readMerged(inputs, lane.merged, resident);
  }

  @Override
  public void finish(float[] output, int outputAt, float[] lse, int lseAt) {
    if (!begun) {
      throw new IllegalStateException("the pass has not chosen, or was finished already");
    }
    attendResident();
    for (int head = 0; head < shape.kvHeads(); head++) {
      if (!policies.get(head).dense() && attendedCount(head) != chosenCount(head)) {
        throw new IllegalStateException(
            "KV head %d has attended to %d of %d chosen tokens"
                .formatted(head, attendedCount(head), chosenCount(head)));
      }
    }
    for (int q = 0; q < shape.qHeads(); q++) {
      resident[q].merge(coded[q]);
      System.arraycopy(
          resident[q].output(), 0, output, outputAt + q * shape.headDim(), shape.headDim());
      lse[lseAt + q] = resident[q].lse();
    }
    release();
  }

  @Override
  public void release() {
    begun = false;
    rows.forget();
  }
}
