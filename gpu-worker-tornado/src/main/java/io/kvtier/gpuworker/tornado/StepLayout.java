package io.kvtier.gpuworker.tornado;

/**
 * Where a step's figures lie in the arrays that go to the device with it. Every size that varies is
 * here and not a parameter of a kernel: TornadoVM compiles scalars in as constants, and one set of
 * compiled kernels is to serve all shapes.
 */
final class StepLayout {
  /** Threads of a work-group; one a token of a page. */
  static final int GROUP = 64;

  /** q heads that a work-group serves, so that a key is decoded once for them; 1..4 are there. */
  static final int QUERIES = 4;

  /** Most ranges that a head's pages are cut into. */
  static final int CHUNKS_MAX = 64;

  /** What stands for -∞: kernels must not meet the difference of two infinities. */
  static final float NONE = -1e30f;

  /** Scores below this are no scores. */
  static final float NONE_AT_MOST = -1e29f;

  // ---- ints of the whole step

  static final int KV_HEADS = 0;
  static final int Q_GROUP = 1;
  static final int HEAD_DIM = 2;

  /** Blocks of {@link #QUERIES} that a group has. */
  static final int BLOCKS = 3;

  static final int PAGES = 4;
  static final int CHUNK_PAGES = 5;
  static final int CHUNKS = 6;
  static final int ELEMENT_BYTES = 7;

  /** Sink rows that count: 0 while the window holds them. */
  static final int SINKS = 8;

  static final int SINK_ROWS = 9;
  static final int SINK_PLACE = 10;
  static final int WINDOW_COUNT = 11;
  static final int WINDOW_FIRST = 12;
  static final int WINDOW_ROWS = 13;
  static final int WINDOW_PLACE = 14;

  /** Rows that are attended to: ints of each, and where in the stage their table begins. */
  static final int ROW_INTS = 16;

  static final int ROW_TABLE = 18;

  /** Elements from one exact row to the next. */
  static final int ROW_ELEMENTS = 19;

  /** 1 where a step attends to exact rows, as each head's first part; else 0. */
  static final int EXACT_PARTS = 17;

  /** Chunks of pages that are attended to from codes, 0 if no head is dense. */
  static final int CODE_CHUNKS = 20;

  /** Where the chosen tokens begin in what comes back. */
  static final int CHOSEN_AT = 21;

  /** Where the slots of rows begin in the stage. */
  static final int SLOT_TABLE = 22;

  /** Where the tables of the sketch begin, behind the ints. */
  static final int TABLES_AT = 23;

  /** Work-groups of a choice's first kernel that attend; those after them scan. */
  static final int ATTEND_GROUPS = 24;

  /** Where a lane's scratch has what depends on the lane's size. */
  static final int WEIGHTS_AT = 25;

  static final int MORE_CHOSEN_AT = 26;

  /** KV heads of the layer before the first of the step's. */
  static final int FIRST_HEAD = 27;

  // ---- ints of each KV head

  static final int HEADS = 32;
  static final int HEAD_INTS = 20;

  /** Key planes of the sketch that is scanned; 0: the head is not scanned. */
  static final int PLANES = 0;

  /** Where the table of the pages' sketches begins. */
  static final int SKETCH_TABLE = 1;

  static final int CODES_TABLE = 2;

  /** Pages that are attended to from codes. */
  static final int CODE_PAGES = 3;

  /** First tokens of the first of them that are left out. */
  static final int SKIPPED = 4;

  static final int TOKENS_MIN = 5;
  static final int TOKENS_MAX = 6;

  // Offsets in bytes: the first four in the sketch, the others in the codes.
  static final int SCALES_AT = 7;
  static final int KEY_MEAN_AT = 8;
  static final int VALUE_MEAN_AT = 9;
  static final int COARSE_AT = 10;
  static final int FINE_AT = 11;
  static final int VALUES_AT = 12;
  static final int VALUE_SCALES_AT = 13;

  /** Where a head's partials begin, and how many there are to merge. */
  static final int FIRST_SLOT = 14;

  static final int SLOTS = 15;

  /** Planes that the sketch of the head's rows has. */
  static final int ROW_PLANES = 16;

  /** Most KV heads of a step; a layer of more takes several. */
  static final int KV_HEADS_MAX = 64;

  static final int INTS = HEADS + KV_HEADS_MAX * HEAD_INTS;

  // ---- floats: queries are padded to whole blocks, [kvHeads][blocks][4][headDim]

  /**
   * Most elements of a step's padded queries together: 32 q heads of 128. What goes to the device
   * and comes back goes whole, whatever of it is used.
   */
  static final int QUERY_ELEMENTS = 4096;

  static final int ROTATED = 0;
  static final int PLAIN = ROTATED + QUERY_ELEMENTS;
  static final int PADDED_QUERIES_MAX = QUERY_ELEMENTS / 16;
  static final int STEPS = PLAIN + QUERY_ELEMENTS;
  static final int BIASES = STEPS + PADDED_QUERIES_MAX;
  static final int ERROR_VARIANCES = BIASES + PADDED_QUERIES_MAX;

  /** Log-sum-exps of tokens that are attended to elsewhere. */
  static final int OTHER_LSES = ERROR_VARIANCES + PADDED_QUERIES_MAX;

  static final int RESIDUAL_MASSES = OTHER_LSES + PADDED_QUERIES_MAX;

  /** What no step changes: {@link Coded#POWERS} and {@link Coded#LEVELS}. */
  static final int CONSTANTS = RESIDUAL_MASSES + KV_HEADS_MAX;

  static final int FLOATS = CONSTANTS + 256 + 16;

  /** Tables of the sketch: {@code 2 headDim} ints a padded query, four entries an int. */
  static final int TABLE_INTS = 2 * QUERY_ELEMENTS;

  /** Most partials of rows, which come back as they are, of each padded query there can be. */
  static final int ROW_SLOTS = 4;

  // ---- what comes back: how many tokens each head chose, merged partials, the chosen tokens

  static final int MERGED_AT = KV_HEADS_MAX;

  /** Floats of the chosen tokens that come back with a choice; others are fetched when needed. */
  static final int CHOSEN_NEAR = 1 << 14;

  /** Floats of all partials of a step that a kernel merges. */
  static final int PARTIALS = 1 << 21;

  // ---- scratch of a choice, one array: TornadoVM looks at each array whenever a graph runs

  /** {@code [padded queries][chunks][2]}: the scan's references and sums. */
  static final int STATS_AT = 0;

  /** {@code [padded queries][2]}: log-sum-exps, and shares of paged tokens. */
  static final int LSES_AT = STATS_AT + 2 * PADDED_QUERIES_MAX * CHUNKS_MAX;

  /** {@code [kvHeads][tokens]}; then {@code [qHeads][tokens]} weights, then more chosen tokens. */
  static final int MASSES_AT = LSES_AT + 2 * PADDED_QUERIES_MAX;

  // ---- partials: a maximum, a sum, rotated values, plain values

  static final int MAX = 0;
  static final int SUM = 1;
  static final int VALUES = 2;

  private StepLayout() {}

  /** Floats of so many partials of every padded query there can be. */
  static int partials(int slots) {
    return slots * (2 * QUERY_ELEMENTS + VALUES * PADDED_QUERIES_MAX);
  }

  /** Floats of a partial. */
  static int partialLength(int headDim) {
    return VALUES + 2 * headDim;
  }
}
