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
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import uk.ac.manchester.tornado.api.TornadoExecutionResult;

/**
 * A pass on a lane. Nothing of it stays on the device between calls: what a graph has merged comes
 * back, some kilobytes, and is merged here with what other graphs gave, in an order that does not
 * depend on what came when. So passes of any number of layers take turns on a lane.
 */
final class TornadoPass implements LayerPass {
  private final TornadoLayer layer;
  private final LayerShape shape;
  private final List<HeadPolicy> policies;
  private final Lane lane;
  private final StepInputs inputs;
  private final GroupQuery[] queries;

  /** By q head: exact rows and the estimated rest, then coded tokens. */
  private final Partial[] exact;

  private final Partial[] coded;
  private final NewRows newRows;
  private final StagedRows rows;
  private final StagedPages pages;
  private final int[] chosenCounts;
  private int[] chosen = new int[0];
  private final float[] values;
  private final float[] otherLses;
  private boolean begun;
  private boolean residentDone;

  TornadoPass(TornadoLayer layer, List<HeadPolicy> policies) {
    this.layer = layer;
    this.shape = layer.shape();
    this.policies = policies;
    this.lane = layer.lane();
    this.inputs = new StepInputs(layer, policies);
    if (inputs.paddedQueries() * shape.headDim() > StepLayout.QUERY_ELEMENTS) {
      throw KvtierException.invalid(
          "%d q heads of %d take %d query elements on this device, padded to blocks of %d; %d is"
              + " the most",
          shape.qHeads(),
          shape.headDim(),
          inputs.paddedQueries() * shape.headDim(),
          StepLayout.QUERIES,
          StepLayout.QUERY_ELEMENTS);
    }
    this.queries = new GroupQuery[shape.kvHeads()];
    Arrays.setAll(queries, head -> new GroupQuery(shape.group(), shape.headDim()));
    this.exact = partials();
    this.coded = partials();
    this.newRows = new NewRows(shape);
    this.rows = new StagedRows(layer, inputs, policies);
    this.pages = new StagedPages(layer, inputs);
    this.chosenCounts = new int[shape.kvHeads()];
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
      exact[q].clear();
      coded[q].clear();
    }
    newRows.attend(queries, newKeys, newValues, newTokens, exact);
    boolean choosing = anySketched();
    if (choosing) {
      requireScores();
    }
    Arrays.fill(chosenCounts, 0);
    lane.on(() -> {
      inputs.begin(layer.pages());
      int slots = choosing ? 1 + inputs.chunks() : 1;
      for (int head = 0; head < shape.kvHeads(); head++) {
        inputs.setSlots(head, head * slots, sketched(head) ? slots : 1);
        if (sketched(head)) {
          inputs.scan(head, lane.chosenMax() / shape.kvHeads());
        }
      }
      inputs.write(lane, 1);
      inputs.writeQueries(lane, queries);
      if (choosing) {
        for (int q = 0; q < otherLses.length; q++) {
          otherLses[q] = exact[q].isEmpty() ? StepLayout.NONE : exact[q].lse();
        }
        inputs.writeChoice(lane, queries, otherLses);
        TornadoExecutionResult result = lane.execute(Lane.Graph.CHOOSE);
        readChosen(result);
      } else {
        lane.execute(Lane.Graph.WINDOW);
      }
      readMerged(exact);
      return this;
    });
    rows.begin(chosenCounts);
    pages.begin();
    begun = true;
    residentDone = false;
  }

  private void requireScores() {
    long scores = (long) shape.qHeads() * layer.pages() * TOKENS;
    if (scores > lane.scoresMax) {
      throw new KvtierException(
          Code.EXHAUSTED,
          ("%d tokens of %d q heads make %d scores, and the device keeps %d at most; start the"
                  + " worker with more device bytes")
              .formatted(layer.pages() * TOKENS, shape.qHeads(), scores, lane.scoresMax));
    }
  }

  private void readChosen(TornadoExecutionResult result) {
    lane.downloadChosen(result, 0, shape.kvHeads());
    int most = 0;
    for (int head = 0; head < shape.kvHeads(); head++) {
      chosenCounts[head] = lane.chosen.get(head);
      most = Math.max(most, chosenCounts[head]);
    }
    int length = 2 * most * shape.kvHeads();
    if (length > 0) {
      lane.downloadChosen(result, ChoiceKernel.CHOSEN, length);
      chosen = chosen.length < length ? new int[length + length / 2] : chosen;
      java.lang.foreign.MemorySegment.copy(
          lane.chosen.getSegment(),
          ValueLayout.JAVA_INT,
          (long) ChoiceKernel.CHOSEN * Integer.BYTES,
          chosen,
          0,
          length);
    }
  }

  /** Merges what a graph has merged for every q head. */
  void readMerged(Partial[] into) {
    int length = StepLayout.partialLength(shape.headDim());
    int headDim = shape.headDim();
    float[] merged = new float[length];
    for (int head = 0; head < shape.kvHeads(); head++) {
      for (int g = 0; g < shape.group(); g++) {
        int at = inputs.padded(head, g) * length;
        float lse = lane.merged.get(at + StepLayout.MAX);
        if (lse < StepLayout.NONE_AT_MOST) {
          continue;
        }
        java.lang.foreign.MemorySegment.copy(
            lane.merged.getSegment(),
            ValueLayout.JAVA_FLOAT,
            (long) at * Float.BYTES,
            merged,
            0,
            length);
        System.arraycopy(merged, StepLayout.VALUES, values, 0, headDim);
        queries[head].rotateBack(values, 0);
        for (int i = 0; i < headDim; i++) {
          values[i] += merged[StepLayout.VALUES + headDim + i];
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
    return policies.get(kvHead).streamed();
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
    return streams(kvHead) ? layer.sinkCount() + index : chosen[chosenAt(kvHead, index)];
  }

  private int chosenAt(int kvHead, int index) {
    return 2 * (index * shape.kvHeads() + kvHead);
  }

  @Override
  public float chosenMass(int kvHead, int index) {
    return streams(kvHead) ? 0 : chosen[chosenAt(kvHead, index) + 1] * ChoiceKernel.MASS_UNIT;
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
    int fetchedAt = layer.shape().rowForm().fetchedAt(rowSections(kvHead));
    rows.give(kvHead, index, slot, offset + fetchedAt);
  }

  @Override
  public void forgetRows() {
    rows.forget();
  }

  @Override
  public void attendRows() {
    rows.take(this);
    while (rows.stageReady()) {
      lane.on(() -> {
        rows.execute(queries);
        readMerged(coded);
        return this;
      });
      rows.take(this);
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
          pages.execute(queries);
          readMerged(coded);
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
    boolean any = policies.stream().anyMatch(HeadPolicy::dense);
    if (any && layer.pages() > 0) {
      lane.on(() -> {
        inputs.begin(layer.pages());
        for (int head = 0; head < shape.kvHeads(); head++) {
          boolean dense = policies.get(head).dense();
          inputs.setSlots(head, head * inputs.chunks(), dense ? inputs.chunks() : 0);
          if (dense) {
            inputs.dense(head);
          }
        }
        inputs.write(lane, 1);
        inputs.writeQueries(lane, queries);
        lane.execute(Lane.Graph.DENSE);
        readMerged(coded);
        return this;
      });
    }
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
      exact[q].merge(coded[q]);
      System.arraycopy(
          exact[q].output(), 0, output, outputAt + q * shape.headDim(), shape.headDim());
      lse[lseAt + q] = exact[q].lse();
    }
    release();
  }

  @Override
  public void release() {
    begun = false;
    rows.forget();
  }
}
