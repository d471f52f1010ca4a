package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * What the kernels write to on their way, for one head dimension and group; one thread at a time.
 */
public final class Scratch {
  private static final int CHUNK = 32;

  /** Pages that are weighed together. */
  static final int PAGES = 4;

  /** Room for a vector of fp32. */
  static final int LANES_MAX = 16;

  /** Full codes of a page: {@code [headDim / 2][64]}, two dimensions a byte. */
  final byte[] codes;

  /** One token's full codes, eight dimensions a word: {@code [wordRoom]}, zeros at the end. */
  final int[] words;

  /**
   * What lies off-heap and at multiples of 64: what is stored as a vector is soon loaded as one.
   */
  private final MemorySegment aligned;

  /** Address of sums of table entries: {@code [pages][group][64]} shorts. */
  final long sums;

  /** Address of sums of lanes before they are added up: {@code [pages][group][16]} fp32. */
  final long pageLanes;

  /** Address of a page's key scales as fp32, in the order in which they are used. */
  final long factors;

  /** A page's in the order of tokens. */
  final short[] ordered;

  /** fp16 values as fp32: scales or a mean. */
  final float[] halves;

  /** Weights times scales, {@code [group][64]}. */
  final float[] scaled;

  /** Scores, {@code [group][64]}. */
  final float[] scores;

  /** Sums of lanes before they are added up, {@code [group][16]}. */
  final float[] lanes;

  /** What makes a query's table sums scores: {@code [pages][group][3]}. */
  final float[] terms;

  /** As {@link #lanes}, of chosen tokens: {@code [64][4][16]}. */
  final float[] chosenLanes = new float[TOKENS * 4 * LANES_MAX];

  /** Keys of chosen tokens times queries: {@code [64][4]}. */
  final float[] dots = new float[TOKENS * 4];

  /** What four bits leave of a key or a value, in steps: {@code [headDim]}. */
  final float[] rest;

  /** Keeps the compiler from dropping reads. */
  long touched;

  private final int headDim;

  public Scratch(int group, int headDim) {
    this.headDim = headDim;
    this.codes = new byte[headDim / 2 * TOKENS];
    this.words = new int[wordRoom(headDim)];
    long sumsLength = (long) Short.BYTES * PAGES * group * TOKENS;
    long lanesLength = (long) Float.BYTES * PAGES * group * LANES_MAX;
    this.aligned =
        Arena.ofAuto().allocate(sumsLength + lanesLength + (long) Float.BYTES * TOKENS, 64);
    this.sums = aligned.address();
    this.pageLanes = sums + sumsLength;
    this.factors = pageLanes + lanesLength;
    this.ordered = new short[group * TOKENS];
    this.halves = new float[Math.max(TOKENS, headDim)];
    this.scores = new float[group * TOKENS];
    this.rest = new float[headDim];
    this.lanes = new float[group * LANES_MAX];
    this.terms = new float[PAGES * group * 3];
    this.scaled = new float[group * TOKENS];
  }

  /** Elements of a rotated accumulator: head dim rounded up to whole chunks of 32 dimensions. */
  public int width() {
    return width(headDim);
  }

  /** As {@link #width()}, for a head dimension. */
  public static int width(int headDim) {
    return (headDim + CHUNK - 1) & -CHUNK;
  }

  /** Words of eight dimensions, in whole vectors. */
  static int wordRoom(int headDim) {
    return (headDim / 8 + 15) & -16;
  }

  /**
   * Brings a rotated accumulator into the order of dimensions: where the last chunk is half a one,
   * its upper eight dimensions were accumulated 16 places after its lower eight.
   */
  public void order(float[] sums, int at) {
    int last = headDim & -CHUNK;
    if (last < headDim) {
      System.arraycopy(sums, at + last + 16, sums, at + last + 8, 8);
    }
  }
}
