package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import io.kvtier.codec.RotLevels;
import java.lang.foreign.MemorySegment;

/**
 * Keys of rot4 in the layout that kvtier did not take, to be measured against the one it took:
 * whole codes, {@code [headDim / 2][64]} bytes of two dimensions each, in the order that joined
 * planes have; then the page's scales and mean key. One group's queries; one thread.
 */
public final class NibblePages {
  private final GroupQuery query;

  /**
   * Tables of the full codes, {@code [group][headDim][64]}. A query of twice the head dim has room
   * for them and lets both layouts be scanned by the same loop.
   */
  private final GroupQuery tables;

  public NibblePages(GroupQuery query) {
    this.query = query;
    this.tables = new GroupQuery(query.group(), 2 * query.headDim());
    tables.requireTables();
    for (int g = 0; g < query.group(); g++) {
      fillTables(g);
    }
  }

  /** Joins a page's planes in the scratch. */
  public static void join(HeadOffsets at, long sketch, long codes, Scratch scratch) {
    CodeKernels.joinPlanes(at, sketch, codes, scratch.codes);
  }

  /** Writes the nibbles of a page of planes, its scales and its mean. */
  public static void write(HeadOffsets at, long sketch, long codes, long nibbles, Scratch scratch) {
    join(at, sketch, codes, scratch);
    int length = at.headDim() / 2 * TOKENS;
    MemorySegment.copy(scratch.codes, 0, OffHeap.ALL, JAVA_BYTE, nibbles, length);
    long scales = nibbles + length;
    MemorySegment.copy(OffHeap.ALL, sketch + at.keyScales(), OffHeap.ALL, scales, 2 * TOKENS);
    long mean = scales + 2 * TOKENS;
    MemorySegment.copy(OffHeap.ALL, sketch + at.keyMean(), OffHeap.ALL, mean, 2L * at.headDim());
  }

  /** Entries 0..63 in steps common to the query's tables, as the sketch's. */
  private void fillTables(int g) {
    RotLevels levels = RotLevels.of(4);
    int headDim = query.headDim();
    float widest = 0;
    float sum = 0;
    for (int i = g * headDim; i < (g + 1) * headDim; i++) {
      widest = Math.max(widest, Math.abs(query.rotated[i]));
      sum += Math.abs(query.rotated[i]);
    }
    float step = 2 * levels.level(15) * widest / GroupQuery.ENTRY_MAX;
    tables.step[g] = step;
    tables.bias[2 * g] = -levels.level(15) * sum;
    for (int nibble = 0; nibble < headDim; nibble++) {
      // Row 4j + s: dimension 8j + s, then 8j + s + 4.
      int dimension = nibble / 8 * 8 + nibble % 8 / 2 + nibble % 2 * 4;
      float q = query.rotated[g * headDim + dimension];
      long table = tables.table(g, nibble);
      for (int i = 0; i < GroupQuery.TABLE_BYTES; i++) {
        float value = q * levels.level(i % 16) + levels.level(15) * Math.abs(q);
        OffHeap.ALL.set(JAVA_BYTE, table + i, (byte) Math.round(value / step));
      }
    }
  }

  /** As {@link Kernels#sketchScores}, by look-ups of full codes. */
  public void sketchScores(long nibbles, Scratch scratch, float[] scores) {
    int rows = query.headDim() / 2;
    for (int g = 0; g < query.group(); g += query.blockAt(g)) {
      if (query.blockAt(g) == 4) {
        SketchKernels.sumTwo(tables, g, nibbles, rows, scratch.sums + 2L * g * TOKENS);
        SketchKernels.sumTwo(tables, g + 2, nibbles, rows, scratch.sums + 2L * (g + 2) * TOKENS);
      } else {
        SketchKernels.sumOne(tables, g, nibbles, rows, scratch.sums + 2L * g * TOKENS);
      }
    }
    SketchKernels.order(scratch.sums, query.group() * TOKENS, scratch.ordered);
    readFactors(nibbles, scratch);
    for (int g = 0; g < query.group(); g++) {
      float bias = tables.bias[2 * g];
      float mean = scratch.scaled[g];
      SketchKernels.scores(scratch.ordered, g, tables.step[g], bias, scratch.halves, mean, scores);
    }
  }

  /** As {@link Kernels#exactScores} of all tokens. */
  public void exactScores(long nibbles, Scratch scratch, float[] scores) {
    for (int g = 0; g < query.group(); g += query.blockAt(g)) {
      if (query.blockAt(g) == 4) {
        NibbleKernels.scoreFour(query, g, nibbles, scores);
      } else {
        NibbleKernels.scoreOne(query, g, nibbles, scores);
      }
    }
    readFactors(nibbles, scratch);
    ScoreKernels.scale(scores, query.group(), -1L, scales(nibbles), scratch.scaled);
  }

  /** Leaves mean scores in the scratch's scaled, key scales in its halves. */
  private void readFactors(long nibbles, Scratch scratch) {
    long scales = scales(nibbles);
    ScoreKernels.meanScores(query, scales + 2 * TOKENS, scratch.lanes, scratch.scaled);
    ScoreKernels.halves(scales, TOKENS, scratch.halves);
  }

  private long scales(long nibbles) {
    return nibbles + query.headDim() / 2L * TOKENS;
  }
}
