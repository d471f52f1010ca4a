package io.kvtier.gpuworker.tornado;

import io.kvtier.KvtierException;
import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.codec.RotLevels;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.cpu.SketchError;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/**
 * Writes a step's figures where the kernels look for them. A step serves as many KV heads as its
 * arrays have room for; kernels count heads from its first. One pass.
 */
final class StepInputs {
  /** Fewest pages of a chunk: less is not worth a work-group. */
  private static final int CHUNK_PAGES_MIN = 4;

  private final TornadoLayer layer;
  private final LayerShape shape;
  private final List<HeadPolicy> policies;
  private final int firstHead;
  private final int heads;
  private final int blocks;
  private final int[] ints = new int[StepLayout.INTS];

  /** One query's tables. */
  private final int[] table;

  private StepInputs(TornadoLayer layer, List<HeadPolicy> policies, int firstHead, int heads) {
    this.layer = layer;
    this.shape = layer.shape();
    this.policies = policies;
    this.firstHead = firstHead;
    this.heads = heads;
    this.table = new int[2 * shape.headDim()];
    this.blocks = blocks(shape);
  }

  private static int blocks(LayerShape shape) {
    return (shape.group() + StepLayout.QUERIES - 1) / StepLayout.QUERIES;
  }

  /**
   * As many as a layer's heads need, one after the other.
   *
   * @throws KvtierException INVALID if there is no room for a single head
   */
  static List<StepInputs> of(TornadoLayer layer, List<HeadPolicy> policies) {
    LayerShape shape = layer.shape();
    int elements = blocks(shape) * StepLayout.QUERIES * shape.headDim();
    int most = Math.min(StepLayout.KV_HEADS_MAX, StepLayout.QUERY_ELEMENTS / elements);
    if (most == 0) {
      throw KvtierException.invalid(
          "a KV head's group is %d q heads of %d, %d elements on this device, padded to blocks of"
              + " %d; %d is the most",
          shape.group(), shape.headDim(), elements, StepLayout.QUERIES, StepLayout.QUERY_ELEMENTS);
    }
    List<StepInputs> all = new ArrayList<>();
    for (int first = 0; first < shape.kvHeads(); first += most) {
      all.add(new StepInputs(layer, policies, first, Math.min(most, shape.kvHeads() - first)));
    }
    return all;
  }

  int firstHead() {
    return firstHead;
  }

  /** The head after the last. */
  int endHead() {
    return firstHead + heads;
  }

  int heads() {
    return heads;
  }

  int blocks() {
    return blocks;
  }

  /** Padded index of a KV head's query {@code g}. */
  int padded(int kvHead, int g) {
    return (kvHead - firstHead) * blocks * StepLayout.QUERIES + g;
  }

  int paddedQueries() {
    return heads * blocks * StepLayout.QUERIES;
  }

  /** Starts a step over pages that are cut into chunks. */
  void begin(int pages) {
    Arrays.fill(ints, 0);
    ints[StepLayout.SLOT_TABLE] = StepLayout.INTS;
    ints[StepLayout.TABLES_AT] = StepLayout.INTS;
    ints[StepLayout.KV_HEADS] = heads;
    ints[StepLayout.FIRST_HEAD] = firstHead;
    ints[StepLayout.Q_GROUP] = shape.group();
    ints[StepLayout.HEAD_DIM] = shape.headDim();
    ints[StepLayout.BLOCKS] = blocks;
    ints[StepLayout.PAGES] = pages;
    int chunksMax = Math.min(StepLayout.CHUNKS_MAX, StepLayout.PARTIALS / mergedLength() - 1);
    int chunkPages = Math.max(CHUNK_PAGES_MIN, (pages + chunksMax - 1) / chunksMax);
    cut(chunkPages, Math.max(1, (pages + chunkPages - 1) / chunkPages));
    ints[StepLayout.CHOSEN_AT] = StepLayout.MERGED_AT + mergedLength();
  }

  /** Has each head's pages be one chunk. */
  void inOneChunk() {
    cut(Math.max(1, ints[StepLayout.PAGES]), 1);
  }

  /**
   * Floats of a partial of each query, the first of which comes back at {@link
   * StepLayout#MERGED_AT}.
   */
  private int mergedLength() {
    return paddedQueries() * StepLayout.partialLength(shape.headDim());
  }

  /** Where the chosen tokens come back. */
  int chosenAt() {
    return ints[StepLayout.CHOSEN_AT];
  }

  /** Attends to the exact rows of every head as well. */
  void exactRows() {
    ints[StepLayout.EXACT_PARTS] = 1;
    layer.describeExact(ints);
  }

  /** Cuts otherwise. */
  void cut(int chunkPages, int chunks) {
    ints[StepLayout.CHUNK_PAGES] = chunkPages;
    ints[StepLayout.CHUNKS] = chunks;
  }

  int chunks() {
    return ints[StepLayout.CHUNKS];
  }

  private int own(int kvHead) {
    return StepLayout.HEADS + (kvHead - firstHead) * StepLayout.HEAD_INTS;
  }

  void set(int at, int value) {
    ints[at] = value;
  }

  /** Gives a head room for so many slots, of which it uses some. */
  void setSlots(int kvHead, int room, int slots) {
    ints[own(kvHead) + StepLayout.FIRST_SLOT] = (kvHead - firstHead) * room;
    ints[own(kvHead) + StepLayout.SLOTS] = slots;
  }

  /** A head whose tokens are scored by its sketch. */
  void scan(int kvHead, int tokensMax) {
    HeadPolicy policy = policies.get(kvHead);
    int own = own(kvHead);
    offsets(
        own, HeadOffsets.inSlots(shape.layout(), policy.residence().sketch(), 0, codesOf(policy)));
    ints[own + StepLayout.PLANES] = policy.residence().planes();
    ints[own + StepLayout.SKETCH_TABLE] = layer.sketchTable(kvHead);
    ints[own + StepLayout.TOKENS_MIN] = Math.min(policy.tokensMin(), tokensMax);
    ints[own + StepLayout.TOKENS_MAX] = Math.min(policy.tokensMax(), tokensMax);
  }

  private int codesOf(HeadPolicy policy) {
    return policy.residence().codes(shape.layout());
  }

  /** A head that attends to all its pages. */
  void dense(int kvHead) {
    ints[StepLayout.CODE_CHUNKS] = chunks();
    int own = own(kvHead);
    Residence dense = Residence.DENSE;
    offsets(
        own, HeadOffsets.inSlots(shape.layout(), dense.sketch(), 0, dense.codes(shape.layout())));
    ints[own + StepLayout.SKETCH_TABLE] = layer.sketchTable(kvHead);
    ints[own + StepLayout.CODES_TABLE] = layer.codesTable(kvHead);
    ints[own + StepLayout.CODE_PAGES] = ints[StepLayout.PAGES];
    ints[own + StepLayout.SKIPPED] = layer.sinkCount();
  }

  /** A head of which some pages are staged, sketch and codes alike. */
  void staged(int kvHead, int table, int pages, int skipped) {
    ints[StepLayout.CODE_CHUNKS] = chunks();
    int own = own(kvHead);
    int all = Residence.STREAMED.codes(shape.layout());
    offsets(own, HeadOffsets.inSlots(shape.layout(), all, 0, all));
    ints[own + StepLayout.SKETCH_TABLE] = table;
    ints[own + StepLayout.CODES_TABLE] = table;
    ints[own + StepLayout.CODE_PAGES] = pages;
    ints[own + StepLayout.SKIPPED] = skipped;
  }

  /** A head whose chosen tokens' rows are staged. */
  void rows(int kvHead) {
    Residence residence = policies.get(kvHead).residence();
    int own = own(kvHead);
    int codes = residence.codes(shape.layout());
    offsets(own, HeadOffsets.inSlots(shape.layout(), residence.sketch(), 0, codes));
    // In a row the planes lie one behind the other, then the value's codes, then its scale.
    int planeBytes = shape.headDim() / 8;
    int fine = (2 - residence.planes()) * planeBytes;
    int values = fine + 2 * planeBytes;
    ints[own + StepLayout.COARSE_AT] = 0;
    ints[own + StepLayout.FINE_AT] = fine;
    ints[own + StepLayout.VALUES_AT] = values;
    ints[own + StepLayout.VALUE_SCALES_AT] = values + shape.headDim() / 2;
    ints[own + StepLayout.ROW_PLANES] = residence.planes();
    ints[own + StepLayout.SKETCH_TABLE] = layer.sketchTable(kvHead);
  }

  private void offsets(int own, HeadOffsets at) {
    ints[own + StepLayout.SCALES_AT] = at.keyScales();
    ints[own + StepLayout.KEY_MEAN_AT] = at.keyMean();
    ints[own + StepLayout.VALUE_MEAN_AT] = at.valueMean();
    ints[own + StepLayout.FINE_AT] = at.fine();
    ints[own + StepLayout.VALUES_AT] = at.valueCodes();
    ints[own + StepLayout.VALUE_SCALES_AT] = at.valueScales();
  }

  /**
   * Gives the figures to the lane; on its thread.
   *
   * @param to the array in which the step's graph looks for them
   */
  void write(Lane lane, IntArray to, int rowSlots) {
    int parts = ints[StepLayout.EXACT_PARTS] + ints[StepLayout.CODE_CHUNKS];
    lane.shape(heads, blocks, chunks(), parts, rowSlots);
    ints[StepLayout.ATTEND_GROUPS] = heads * blocks * parts;
    ints[StepLayout.WEIGHTS_AT] = lane.weightsAt();
    ints[StepLayout.MORE_CHOSEN_AT] = lane.moreChosenAt();
    MemorySegment.copy(ints, 0, to.getSegment(), ValueLayout.JAVA_INT, 0, ints.length);
  }

  /** Writes what no step changes. */
  static void writeConstants(FloatArray floats) {
    for (int e = 0; e < 256; e++) {
      floats.set(Coded.POWERS + e, (float) Math.scalb(1.0, e - 150));
    }
    for (int code = 0; code < 16; code++) {
      floats.set(Coded.LEVELS + code, RotLevels.of(4).level(code));
    }
  }

  /** Gives the queries, of all the layer's heads, to the lane; on its thread. */
  void writeQueries(Lane lane, GroupQuery[] queries) {
    int length = shape.group() * shape.headDim();
    // Once: each call makes a segment.
    MemorySegment floats = lane.floats.getSegment();
    for (int head = firstHead; head < endHead(); head++) {
      int at = padded(head, 0) * shape.headDim();
      copy(queries[head].rotated(), length, floats, StepLayout.ROTATED + at);
      copy(queries[head].plain(), length, floats, StepLayout.PLAIN + at);
    }
  }

  private static void copy(float[] from, int length, MemorySegment to, int at) {
    MemorySegment.copy(from, 0, to, ValueLayout.JAVA_FLOAT, (long) at * Float.BYTES, length);
  }

  /** Gives what a choice needs besides; on the lane's thread. */
  void writeChoice(Lane lane, GroupQuery[] queries, float[] otherLses) {
    int tableInts = table.length;
    MemorySegment choice = lane.choice.getSegment();
    for (int head = firstHead; head < endHead(); head++) {
      HeadPolicy policy = policies.get(head);
      int planes = policy.residence().planes();
      lane.floats.set(StepLayout.RESIDUAL_MASSES + head - firstHead, policy.residualMass());
      for (int g = 0; g < shape.group(); g++) {
        int q = padded(head, g);
        lane.floats.set(StepLayout.OTHER_LSES + q, otherLses[head * shape.group() + g]);
        if (policy.sketched()) {
          lane.floats.set(StepLayout.STEPS + q, queries[head].scoreStep(g, planes));
          lane.floats.set(StepLayout.BIASES + q, queries[head].scoreBias(g, planes));
          lane.floats.set(
              StepLayout.ERROR_VARIANCES + q,
              SketchError.variance(planes) * queries[head].squareNorm(g));
          queries[head].copyTables(g, table, 0);
          MemorySegment.copy(
              table,
              0,
              choice,
              ValueLayout.JAVA_INT,
              (StepLayout.INTS + (long) q * tableInts) * Integer.BYTES,
              tableInts);
        }
      }
    }
  }

  /** Bytes of a token's row, as it is given. */
  int rowBytes(int kvHead) {
    return shape.layout().lengthOf(policies.get(kvHead).residence().codes(shape.layout()))
        / PageLayout.TOKENS;
  }
}
