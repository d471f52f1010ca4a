package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.OnlineSoftmax;
import io.kvtier.attention.Partial;
import io.kvtier.codec.Rot4;
import io.kvtier.codec.Rotation;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.TokenChooser;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;
import java.util.List;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A pass on the processor. Per KV head: exact rows make a partial at once; a sparse head's sketch
 * scores are kept between the two halves, since the estimate of the rest needs them once the chosen
 * tokens are known.
 */
final class CpuPass implements LayerPass {
  private final CpuLayer layer;
  private final LayerShape shape;
  private final SlotLayout slots;
  private final List<HeadPolicy> policies;
  private final Rotation rotation;
  private final SketchScan scan;
  private final TokenChooser chooser = new TokenChooser();
  private final HeadState[] heads;
  private float[] exactKeys = new float[0];
  private float[] exactValues = new float[0];
  private float[] exactScores = new float[0];
  private final float[] pageScores = new float[TOKENS];
  private final OnlineSoftmax exactSum;
  private final float[] rest;
  private final float[] coded;
  private int[] neededPages = new int[64];
  private int[] neededHeads = new int[64];

  /** Index of each needed pair's first chosen token among its head's. */
  private int[] neededChosen = new int[64];

  private int needed;

  /** What one KV head keeps from the first half to the second. */
  private static final class HeadState {
    final GroupQuery query;
    final Partial[] partials;

    /** Per q head {@code [2][headDim]}: rotated residuals, then means as they are. */
    final OnlineSoftmax[] coded;

    /**
     * {@code [group][paged tokens]}: e^(sketch score - maxScore); 0 where a token is attended
     * otherwise.
     */
    float[] weights = new float[0];

    /** {@code [group]}. */
    final float[] maxScore;

    float[] masses = new float[0];
    int[] chosen = new int[0];
    int chosenCount;

    HeadState(LayerShape shape, Rotation rotation) {
      query = new GroupQuery(shape, rotation);
      partials = new Partial[shape.group()];
      Arrays.setAll(partials, g -> new Partial(shape.headDim()));
      maxScore = new float[shape.group()];
      coded = new OnlineSoftmax[shape.group()];
      Arrays.setAll(coded, g -> new OnlineSoftmax(2 * shape.headDim()));
    }
  }

  CpuPass(CpuLayer layer, List<HeadPolicy> policies) {
    this.layer = layer;
    this.shape = layer.shape();
    this.slots = layer.slots();
    this.policies = policies;
    this.rotation = new Rotation(shape.headDim());
    this.scan = new SketchScan(layer);
    this.heads = new HeadState[shape.kvHeads()];
    Arrays.setAll(heads, head -> new HeadState(shape, rotation));
    this.exactSum = new OnlineSoftmax(shape.headDim());
    this.rest = new float[shape.headDim()];
    this.coded = new float[shape.headDim()];
  }

  @Override
  public void choose(
      float[] queries, int queryAt, float[] newKeys, float[] newValues, int newTokens) {
    needed = 0;
    for (int head = 0; head < heads.length; head++) {
      HeadState state = heads[head];
      state.query.load(queries, queryAt + head * shape.group() * shape.headDim());
      int exactRows = readExact(head, newKeys, newValues, newTokens);
      for (int g = 0; g < shape.group(); g++) {
        state.partials[g].clear();
        state.coded[g].clear();
        attendExact(state, g, exactRows);
      }
      state.chosenCount = 0;
      if (!policies.get(head).dense() && layer.pages() > 0) {
        chooseSparse(head, state);
      }
    }
  }

  // ---- exact rows

  /** Reads the head's exact rows once for its group, the step's own tokens last. */
  private int readExact(int head, float[] newKeys, float[] newValues, int newTokens) {
    ExactRows exact = layer.exact();
    int headDim = shape.headDim();
    int sinks = layer.pages() > 0 ? exact.sinkCount() : 0;
    int rows = sinks + exact.windowCount() + newTokens;
    if (exactScores.length < rows) {
      exactKeys = new float[2 * rows * headDim];
      exactValues = new float[2 * rows * headDim];
      exactScores = new float[2 * rows];
    }
    int n = 0;
    for (int row = 0; row < sinks; row++) {
      exact.readSink(row, head, exactKeys, exactValues, n++ * headDim);
    }
    for (int row = 0; row < exact.windowCount(); row++) {
      exact.readWindow(row, head, exactKeys, exactValues, n++ * headDim);
    }
    for (int t = 0; t < newTokens; t++) {
      int at = t * shape.rowLength() + head * headDim;
      System.arraycopy(newKeys, at, exactKeys, n * headDim, headDim);
      System.arraycopy(newValues, at, exactValues, n++ * headDim, headDim);
    }
    return rows;
  }

  private void attendExact(HeadState state, int g, int rows) {
    int headDim = shape.headDim();
    exactSum.clear();
    for (int row = 0; row < rows; row++) {
      float score = 0;
      for (int i = 0; i < headDim; i++) {
        score += state.query.plain[g * headDim + i] * exactKeys[row * headDim + i];
      }
      exactScores[row] = score;
      exactSum.raise(score);
    }
    float[] sum = exactSum.sum();
    for (int row = 0; row < rows; row++) {
      float weight = exactSum.weight(exactScores[row]);
      for (int i = 0; i < headDim; i++) {
        sum[i] += weight * exactValues[row * headDim + i];
      }
    }
    exactSum.mergeInto(state.partials[g]);
  }

  // ---- sparse heads: scan and choice

  private void chooseSparse(int head, HeadState state) {
    int paged = layer.pages() * TOKENS;
    int group = shape.group();
    if (state.masses.length < paged) {
      int capacity = Math.max(paged, 2 * state.masses.length);
      state.weights = new float[capacity * group];
      state.masses = new float[capacity];
      state.chosen = new int[capacity];
    }
    scanSketch(head, state, paged);
    Arrays.fill(state.masses, 0, paged, 0);
    for (int g = 0; g < group; g++) {
      addMasses(state, g, paged);
    }
    HeadPolicy policy = policies.get(head);
    state.chosenCount = chooser.choose(policy, state.masses, paged, state.chosen);
    int lastPage = -1;
    for (int i = 0; i < state.chosenCount; i++) {
      int page = state.chosen[i] / TOKENS;
      if (page != lastPage) {
        addNeeded(page, head, i);
        lastPage = page;
      }
    }
  }

  private void scanSketch(int head, HeadState state, int paged) {
    int base = head * slots.sketchStride;
    for (int page = 0; page < layer.pages(); page++) {
      UnsafeBuffer sketch = layer.sketch(page);
      scan.loadSketch(sketch, base);
      for (int g = 0; g < shape.group(); g++) {
        int queryAt = g * shape.headDim();
        float mean = scan.meanDot(state.query.plain, queryAt, sketch, base + slots.keyMeanAt);
        scan.score(state.query.rotated, queryAt, mean, state.weights, g * paged + page * TOKENS);
      }
    }
    for (int g = 0; g < shape.group(); g++) {
      // Sinks are attended exactly; their codes in page 0 must not count again.
      Arrays.fill(
          state.weights, g * paged, g * paged + layer.exact().sinkCount(), Float.NEGATIVE_INFINITY);
    }
  }

  /**
   * Turns one q head's scores into weights, and adds its estimated attention shares, over the exact
   * tokens' and all sketch scores, to the pooled masses.
   */
  private void addMasses(HeadState state, int g, int paged) {
    float[] weights = state.weights;
    int from = g * paged;
    float max = Float.NEGATIVE_INFINITY;
    for (int t = 0; t < paged; t++) {
      max = Math.max(max, weights[from + t]);
    }
    state.maxScore[g] = max;
    double total = Math.exp(state.partials[g].lse() - max);
    for (int t = 0; t < paged; t++) {
      float weight = (float) Math.exp(weights[from + t] - max);
      weights[from + t] = weight;
      total += weight;
    }
    float toShare = (float) (1 / (total * shape.group()));
    for (int t = 0; t < paged; t++) {
      state.masses[t] += weights[from + t] * toShare;
    }
  }

  private void addNeeded(int page, int head, int firstChosen) {
    if (needed == neededPages.length) {
      neededPages = Arrays.copyOf(neededPages, 2 * needed);
      neededHeads = Arrays.copyOf(neededHeads, 2 * needed);
      neededChosen = Arrays.copyOf(neededChosen, 2 * needed);
    }
    neededPages[needed] = page;
    neededHeads[needed] = head;
    neededChosen[needed] = firstChosen;
    needed++;
  }

  @Override
  public int neededCount() {
    return needed;
  }

  @Override
  public int neededPage(int index) {
    return neededPages[index];
  }

  @Override
  public int neededHead(int index) {
    return neededHeads[index];
  }

  @Override
  public int chosenCount(int kvHead) {
    return heads[kvHead].chosenCount;
  }

  @Override
  public int chosenPosition(int kvHead, int index) {
    return heads[kvHead].chosen[index];
  }

  @Override
  public float chosenMass(int kvHead, int index) {
    return heads[kvHead].masses[heads[kvHead].chosen[index]];
  }

  @Override
  public int chosenTotal() {
    int total = 0;
    for (HeadState state : heads) {
      total += state.chosenCount;
    }
    return total;
  }

  // ---- second half

  @Override
  public void attendNeeded(int index, DeviceSlot codes) {
    int head = neededHeads[index];
    HeadState state = heads[head];
    int page = neededPages[index];
    int from = neededChosen[index];
    boolean last = index + 1 == needed || neededHeads[index + 1] != head;
    int to = last ? state.chosenCount : neededChosen[index + 1];
    int base = head * slots.sketchStride;
    int paged = layer.pages() * TOKENS;
    UnsafeBuffer sketch = layer.sketch(page);
    for (int g = 0; g < shape.group(); g++) {
      int queryAt = g * shape.headDim();
      float mean = scan.meanDot(state.query.plain, queryAt, sketch, base + slots.keyMeanAt);
      float max = Float.NEGATIVE_INFINITY;
      for (int i = from; i < to; i++) {
        int token = state.chosen[i] % TOKENS;
        pageScores[token] = mean + codedScore(state, g, base, sketch, codes.buffer(), token);
        max = Math.max(max, pageScores[token]);
      }
      OnlineSoftmax sum = state.coded[g];
      sum.raise(max);
      float pageWeight = 0;
      for (int i = from; i < to; i++) {
        int token = state.chosen[i] % TOKENS;
        pageWeight += addCoded(sum, codes.buffer(), token, pageScores[token]);
        // What is attended is no part of the estimated rest.
        state.weights[g * paged + state.chosen[i]] = 0;
      }
      addMean(sum.sum(), shape.headDim(), pageWeight, sketch, base);
    }
  }

  @Override
  public void finish(float[] output, int outputAt, float[] lse, int lseAt) {
    int headDim = shape.headDim();
    for (int head = 0; head < heads.length; head++) {
      HeadState state = heads[head];
      for (int g = 0; g < shape.group(); g++) {
        if (policies.get(head).dense()) {
          attendDense(head, state, g);
        } else if (layer.pages() > 0) {
          attendRest(head, state, g);
        }
        mergeCoded(state.coded[g], state.partials[g]);
        int qHead = head * shape.group() + g;
        System.arraycopy(
            state.partials[g].output(), 0, output, outputAt + qHead * headDim, headDim);
        lse[lseAt + qHead] = state.partials[g].lse();
      }
    }
  }

  private void attendDense(int head, HeadState state, int g) {
    OnlineSoftmax sum = state.coded[g];
    int base = head * slots.sketchStride;
    int queryAt = g * shape.headDim();
    for (int page = 0; page < layer.pages(); page++) {
      UnsafeBuffer sketch = layer.sketch(page);
      UnsafeBuffer codes = layer.codes(head, page).buffer();
      scan.loadAll(sketch, base, codes);
      float mean = scan.meanDot(state.query.plain, queryAt, sketch, base + slots.keyMeanAt);
      scan.score(state.query.rotated, queryAt, mean, pageScores, 0);
      int from = page == 0 ? layer.exact().sinkCount() : 0;
      float max = Float.NEGATIVE_INFINITY;
      for (int t = from; t < TOKENS; t++) {
        max = Math.max(max, pageScores[t]);
      }
      sum.raise(max);
      float pageWeight = 0;
      for (int t = from; t < TOKENS; t++) {
        pageWeight += addCoded(sum, codes, t, pageScores[t]);
      }
      addMean(sum.sum(), shape.headDim(), pageWeight, sketch, base);
    }
  }

  private float codedScore(
      HeadState state, int g, int base, UnsafeBuffer sketch, UnsafeBuffer code, int token) {
    float dot =
        Rot4.keyDot(
            sketch,
            base + slots.signAt,
            base + slots.coarseAt,
            code,
            slots.fineAt,
            token,
            state.query.rotated,
            g * shape.headDim(),
            shape.headDim());
    return dot * Rot4.half(sketch, base + slots.keyScalesAt, token);
  }

  private float addCoded(OnlineSoftmax sum, UnsafeBuffer codes, int token, float score) {
    float weight = sum.weight(score);
    float scaled = weight * Rot4.half(codes, slots.valueScalesAt, token);
    Rot4.addValue(codes, slots.valueCodesAt, token, scaled, sum.sum(), 0, shape.headDim());
    return weight;
  }

  private void addMean(float[] sum, int at, float weight, UnsafeBuffer sketch, int base) {
    for (int i = 0; i < shape.headDim(); i++) {
      sum[at + i] += weight * Rot4.half(sketch, base + slots.valueMeanAt, i);
    }
  }

  private void mergeCoded(OnlineSoftmax sum, Partial partial) {
    if (sum.total() > 0) {
      int headDim = shape.headDim();
      System.arraycopy(sum.sum(), 0, coded, 0, headDim);
      rotation.invert(coded, 0);
      for (int i = 0; i < headDim; i++) {
        coded[i] += sum.sum()[headDim + i];
      }
      partial.merge(coded, 0, 1 / sum.total(), sum.lse());
    }
  }

  /** What was not chosen: each token's mass by its sketch score, times its page's mean value. */
  private void attendRest(int head, HeadState state, int g) {
    Arrays.fill(rest, 0);
    int base = head * slots.sketchStride;
    int paged = layer.pages() * TOKENS;
    float total = 0;
    for (int page = 0; page < layer.pages(); page++) {
      float pageWeight = 0;
      for (int t = 0; t < TOKENS; t++) {
        pageWeight += state.weights[g * paged + page * TOKENS + t];
      }
      if (pageWeight > 0) {
        total += pageWeight;
        addMean(rest, 0, pageWeight, layer.sketch(page), base);
      }
    }
    if (total > 0) {
      state.partials[g].merge(rest, 0, 1 / total, state.maxScore[g] + (float) Math.log(total));
    }
  }
}
