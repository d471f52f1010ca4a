package io.kvtier.attention;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.codec.RotLevels;
import io.kvtier.codec.Rotation;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * The queries of the q heads that share one KV head, made ready for the kernels: divided by
 * √headDim, rotated, put in the order in which full codes are read, and as look-up tables for the
 * sketch. One thread.
 *
 * <p>The tables turn four bits of a plane, four dimensions of one token, into their share of the
 * score: {@code Σ ±w q_i}, quantized to 0..63 in steps common to the query's tables, so that four
 * shares add up within a byte. With steps of a 63rd of the widest table's range the rounding adds
 * about a hundredth to the error of a 2-bit key.
 */
public final class GroupQuery {
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Largest entry of a table: four of them fit a byte. */
  static final int ENTRY_MAX = 63;

  /** Entries of a table: four bits. */
  static final int ENTRIES = 16;

  /** A table is repeated over a whole 512-bit vector: look-ups of any width find it. */
  static final int TABLE_BYTES = 64;

  /** Most q heads a KV head can have. */
  public static final int GROUP_MAX = 128;

  private final int group;
  private final int headDim;
  private final Rotation rotation;

  /** {@code [group][headDim]}, divided by √headDim. */
  final float[] plain;

  /** {@code [group][headDim]}, divided by √headDim and rotated. */
  final float[] rotated;

  /**
   * The rotated queries as full codes are read: blocks of four q heads, then single ones; in a
   * block {@code [headDim / 2][2][heads of the block]}, row 4j + s being dimensions 8j + s and 8j +
   * s + 4.
   */
  final float[] spread;

  /**
   * The rotated queries as one token's codes are read: {@code [group][8][wordRoom]}, element {@code
   * [k][j]} being dimension 8j + k; zeros beyond.
   */
  final float[] across;

  /**
   * {@code [headDim / 8][queries][4][64]} of each block of four queries, then of single ones: the
   * tables of the sign plane, then the coarse, in the order in which a scan takes them. Off-heap
   * and at a multiple of 64, since a vector that lies across two cache lines is loaded at a third
   * of the speed. Empty until a query comes that will be scanned for.
   */
  private MemorySegment tables = MemorySegment.NULL;

  /** {@code [group]}: what one step of a table's entries is worth. */
  final float[] step;

  /** {@code [group][2]}: what the tables' zeros are worth: the sign plane's, the coarse plane's. */
  final float[] bias;

  /** Queries of so many heads of so many dimensions. */
  public GroupQuery(int group, int headDim) {
    requireInRange("q heads of a KV head", group, 1, GROUP_MAX);
    this.group = group;
    this.headDim = headDim;
    this.rotation = new Rotation(headDim);
    this.plain = new float[group * headDim];
    this.rotated = new float[group * headDim];
    this.spread = new float[group * headDim];
    this.across = new float[group * 8 * Scratch.wordRoom(headDim)];
    this.step = new float[group];
    this.bias = new float[2 * group];
  }

  /** q heads. */
  public int group() {
    return group;
  }

  public int headDim() {
    return headDim;
  }

  /** ‖q / √headDim‖² of one query. */
  public float squareNorm(int g) {
    float sum = 0;
    for (int i = g * headDim; i < (g + 1) * headDim; i++) {
      sum += plain[i] * plain[i];
    }
    return sum;
  }

  /** {@code [group][headDim]}, divided by √headDim; for kernels elsewhere, not to be changed. */
  public float[] plain() {
    return plain;
  }

  /** The same, rotated. */
  public float[] rotated() {
    return rotated;
  }

  /**
   * Copies one query's tables: {@code [2 planes][headDim / 4][16]}, four entries an int, the first
   * in its lowest byte.
   *
   * @param out receives {@code 2 headDim} ints from {@code at} on
   */
  public void copyTables(int g, int[] out, int at) {
    for (int i = 0; i < 2 * headDim; i++) {
      out[at + i] = OffHeap.ALL.get(INT, table(g, i / 4) + i % 4 * 4L);
    }
  }

  /** What one step of the tables' sums is worth in a score by so many planes, 1 or 2. */
  public float scoreStep(int g, int planes) {
    return step[g] * signFactor(planes);
  }

  /** What a score by so many planes has beside its table sums, before the token's scale. */
  public float scoreBias(int g, int planes) {
    return planes == 1 ? bias[2 * g] * signFactor(1) : bias[2 * g] + bias[2 * g + 1];
  }

  /** A sign is worth more where it stands alone. */
  private static float signFactor(int planes) {
    return planes == 1 ? SIGN_ALONE / SIGN_WEIGHT : 1;
  }

  /** Tables of one query. */
  int tableCount() {
    return headDim / 2;
  }

  /**
   * Address of one of a query's tables. Valid while this object is reachable.
   *
   * @param index the plane's first, 0 or {@code headDim / 4}, plus the dimension / 4
   */
  long table(int g, int index) {
    int block = g & -4;
    long at =
        blockAt(block) == 4
            ? (long) block * tableCount() + (index / 4 * 4 + g - block) * 4L + index % 4
            : (long) g * tableCount() + index;
    return tables.address() + at * TABLE_BYTES;
  }

  /** All tables, for tests. */
  MemorySegment tables() {
    return tables;
  }

  void requireTables() {
    if (tables.byteSize() == 0) {
      tables = Arena.ofAuto().allocate((long) group * tableCount() * TABLE_BYTES, TABLE_BYTES);
    }
  }

  /** Queries of the block that begins at query {@code g}. */
  int blockAt(int g) {
    return group - g >= 4 ? 4 : 1;
  }

  /**
   * Takes the group's queries.
   *
   * @param queries {@code [group][headDim]} from {@code at} on; read only
   * @param sketched whether the sketch will be scanned, which needs the tables
   */
  public void load(float[] queries, int at, boolean sketched, Kernels kernels) {
    float scale = (float) (1 / Math.sqrt(headDim));
    for (int i = 0; i < group * headDim; i++) {
      plain[i] = queries[at + i] * scale;
      rotated[i] = plain[i];
    }
    for (int g = 0; g < group; g++) {
      rotation.apply(rotated, g * headDim);
    }
    for (int g = 0; g < group; g += blockAt(g)) {
      spread(g, blockAt(g));
    }
    int room = Scratch.wordRoom(headDim);
    for (int g = 0; g < group; g++) {
      for (int i = 0; i < headDim; i++) {
        across[(g * 8 + i % 8) * room + i / 8] = rotated[g * headDim + i];
      }
    }
    if (sketched) {
      requireTables();
      for (int g = 0; g < group; g++) {
        quantize(g);
        kernels.fillTables(this, g);
      }
    }
  }

  private void spread(int g, int heads) {
    int at = g * headDim;
    for (int row = 0; row < headDim / 2; row++) {
      int dimension = row / 4 * 8 + row % 4;
      for (int half = 0; half < 2; half++) {
        for (int h = 0; h < heads; h++) {
          spread[at++] = rotated[(g + h) * headDim + dimension + 4 * half];
        }
      }
    }
  }

  /** Sets the step so that the widest table of the sign plane, which weighs more, fits. */
  private void quantize(int g) {
    float widest = 0;
    float sum = 0;
    for (int i = g * headDim; i < (g + 1) * headDim; i += 4) {
      float magnitude =
          Math.abs(rotated[i])
              + Math.abs(rotated[i + 1])
              + Math.abs(rotated[i + 2])
              + Math.abs(rotated[i + 3]);
      widest = Math.max(widest, magnitude);
      sum += magnitude;
    }
    step[g] = 2 * SIGN_WEIGHT * widest / ENTRY_MAX;
    bias[2 * g] = -SIGN_WEIGHT * sum;
    bias[2 * g + 1] = -COARSE_WEIGHT * sum;
  }

  /** The sign alone is worth this many scales. */
  static final float SIGN_ALONE = RotLevels.SIGN_LEVEL;

  /** With both planes the sign is worth this much, and the coarse bit {@link #COARSE_WEIGHT}. */
  static final float SIGN_WEIGHT = RotLevels.of(4).planeWeight(0);

  static final float COARSE_WEIGHT = RotLevels.of(4).planeWeight(1);

  /** Turns {@code [headDim]} of an output back that was accumulated rotated. */
  public void rotateBack(float[] output, int at) {
    rotation.invert(output, at);
  }
}
