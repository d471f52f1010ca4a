import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BOOLEAN;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.foreign.AddressLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/**
 * ggml's CPU flash attention behind a line protocol, so that a benchmark can measure it in turns
 * with kvtier's kernels. Needs a JDK 25 and nothing else:
 *
 * <pre>
 * java --enable-native-access=ALL-UNNAMED GgmlFlashAttention.java LIBDIR
 * </pre>
 *
 * LIBDIR holds ggml's loadable libraries, as the npm package {@code @node-llama-cpp/linux-x64}
 * ships them ({@code libggml.*.so}, {@code libggml-base.so}, {@code libggml-cpu-*.so}); ggml itself
 * picks the CPU library for this processor. First it prints {@code ready} and what it loaded. Then,
 * one answer a line of input:
 *
 * <pre>
 * prepare DTYPE TOKENS QHEADS KVHEADS HEADDIM THREADS   ok           one query; DTYPE f16, q8_0, q4_0
 * run N                                                 ns TOTAL     computes N times
 * check                                                 ok ERROR     the last head, against doubles
 * release                                               ok
 * quit                                                  (ends; so does the end of the input)
 * </pre>
 *
 * Anything refused is answered {@code error TEXT}. A failed assertion of ggml ends the process.
 */
public final class GgmlFlashAttention {
  private GgmlFlashAttention() {}

  public static void main(String[] args) throws Throwable {
    if (args.length != 1) {
      System.err.println("usage: java GgmlFlashAttention.java LIBDIR");
      System.exit(2);
    }
    Ggml ggml = new Ggml(Path.of(args[0]));
    answer("ready " + ggml.description());
    try (Session session = new Session(ggml)) {
      BufferedReader input =
          new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
      for (String line = input.readLine();
          line != null && !line.equals("quit");
          line = input.readLine()) {
        try {
          answer(session.answer(line));
        } catch (IllegalArgumentException | IllegalStateException e) {
          answer("error " + e.getMessage());
        }
      }
    }
  }

  private static void answer(String line) {
    System.out.println(line);
    System.out.flush();
  }
}

/** What the commands act on: at most one prepared graph. */
final class Session implements AutoCloseable {
  private static final int RUNS_MAX = 1_000_000;

  private final Ggml ggml;
  private Attention attention;

  Session(Ggml ggml) {
    this.ggml = ggml;
  }

  String answer(String line) throws Throwable {
    String[] words = line.strip().split(" +");
    switch (words[0]) {
      case "prepare" -> {
        require(words.length == 7, "prepare takes 6 values: " + line);
        Shape shape = Shape.parse(Arrays.copyOfRange(words, 1, words.length));
        close();
        attention = new Attention(ggml, shape);
        return "ok";
      }
      case "run" -> {
        require(words.length == 2, "run takes 1 value: " + line);
        return "ns " + prepared().runNs(Shape.number("n", words[1], 1, RUNS_MAX));
      }
      case "check" -> {
        return String.format(Locale.ROOT, "ok %.3e", prepared().check());
      }
      case "release" -> {
        close();
        return "ok";
      }
      default -> throw new IllegalArgumentException("no such command: " + line);
    }
  }

  private Attention prepared() {
    if (attention == null) {
      throw new IllegalStateException("nothing is prepared");
    }
    return attention;
  }

  private static void require(boolean holds, String message) {
    if (!holds) {
      throw new IllegalArgumentException(message);
    }
  }

  @Override
  public void close() {
    if (attention != null) {
      attention.close();
      attention = null;
    }
  }
}

/** One attention call: one query a q head, over {@code tokens} keys and values. */
record Shape(Dtype dtype, int tokens, int qHeads, int kvHeads, int headDim, int threads) {
  /** Bytes of K and V together; more would rather swap than be measured. */
  private static final long KV_BYTES_MAX = 8L << 30;

  Shape {
    if (qHeads % kvHeads != 0) {
      throw new IllegalArgumentException(qHeads + " q heads are no multiple of " + kvHeads);
    }
    if (headDim % Dtype.BLOCK != 0) {
      throw new IllegalArgumentException(headDim + " dimensions are no multiple of " + Dtype.BLOCK);
    }
    long kvBytes = 2L * tokens * kvHeads * dtype.rowBytes(headDim);
    if (kvBytes > KV_BYTES_MAX) {
      throw new IllegalArgumentException(
          "K and V take " + kvBytes + " bytes; at most " + KV_BYTES_MAX + " are allowed");
    }
  }

  static Shape parse(String[] words) {
    return new Shape(
        Dtype.of(words[0]),
        number("tokens", words[1], 1, 1 << 24),
        number("qHeads", words[2], 1, 1024),
        number("kvHeads", words[3], 1, 1024),
        number("headDim", words[4], Dtype.BLOCK, 1024),
        number("threads", words[5], 1, 512));
  }

  static int number(String name, String word, int min, int max) {
    int value = Integer.parseInt(word);
    if (value < min || value > max) {
      throw new IllegalArgumentException(
          name + " is " + value + "; it must be " + min + ".." + max);
    }
    return value;
  }
}

/** ggml's types of K and V, with their layout in ggml.h and ggml-common.h. */
enum Dtype {
  F16("f16", 1, 64, 0x1p-10),
  Q8_0("q8_0", 8, 34, 0x1p-5),
  Q4_0("q4_0", 2, 18, 0x1p-5);

  /** Values a block. f16 has no blocks; 32 values of it are treated alike. */
  static final int BLOCK = 32;

  private static final ValueLayout.OfShort HALF =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  final String ggmlName;
  final int number;
  private final int blockBytes;
  private final double tolerance;

  Dtype(String ggmlName, int number, int blockBytes, double tolerance) {
    this.ggmlName = ggmlName;
    this.number = number;
    this.blockBytes = blockBytes;
    this.tolerance = tolerance;
  }

  static Dtype of(String name) {
    for (Dtype dtype : values()) {
      if (dtype.ggmlName.equals(name)) {
        return dtype;
      }
    }
    throw new IllegalArgumentException("no such dtype: " + name);
  }

  long rowBytes(int headDim) {
    return (long) headDim / BLOCK * blockBytes;
  }

  /**
   * The largest error of an output value that rounding explains, as a share of the largest value.
   * For quantized K ggml rounds the query to 8 bits, whatever the length. For f16 it sums the
   * values in fp16, so that the error grows as the root of the number of tokens.
   */
  double tolerance(int tokens) {
    return this == F16 ? tolerance * Math.sqrt(Math.max(tokens, 16)) : tolerance;
  }

  /** Decodes {@code into.length} values from byte {@code at} of {@code rows}. */
  void decode(MemorySegment rows, long at, float[] into) {
    for (int i = 0; i < into.length; i += BLOCK, at += blockBytes) {
      switch (this) {
        case F16 -> {
          for (int j = 0; j < BLOCK; j++) {
            into[i + j] = half(rows, at + 2L * j);
          }
        }
        case Q8_0 -> {
          float scale = half(rows, at);
          for (int j = 0; j < BLOCK; j++) {
            into[i + j] = scale * rows.get(JAVA_BYTE, at + 2 + j);
          }
        }
        case Q4_0 -> {
          float scale = half(rows, at);
          for (int j = 0; j < BLOCK / 2; j++) {
            int pair = rows.get(JAVA_BYTE, at + 2 + j);
            into[i + j] = scale * ((pair & 15) - 8);
            into[i + j + BLOCK / 2] = scale * (((pair >> 4) & 15) - 8);
          }
        }
      }
    }
  }

  private static float half(MemorySegment rows, long at) {
    return Float.float16ToFloat(rows.get(HALF, at));
  }
}

/**
 * A prepared graph: q {@code [qHeads][1][headDim]} fp32, k and v {@code [kvHeads][tokens][headDim]}
 * of the dtype, mask {@code [1][tokens]} fp16 of zeros, output {@code [1][qHeads][headDim]} fp32,
 * all row-major and contiguous. Owns ggml's memory until closed; one thread.
 */
final class Attention implements AutoCloseable {
  private static final int CHUNK_ROWS = 512;
  private static final long SEED = 1;

  private final Ggml ggml;
  private final Shape shape;
  private final MemorySegment context;
  private final MemorySegment buffer;
  private final MemorySegment q;
  private final MemorySegment k;
  private final MemorySegment v;
  private final MemorySegment output;
  private final MemorySegment graph;

  Attention(Ggml ggml, Shape shape) throws Throwable {
    this.ggml = ggml;
    this.shape = shape;
    context = ggml.newContext();
    int dtype = shape.dtype().number;
    q = ggml.newTensor(context, Ggml.TYPE_F32, shape.headDim(), 1, shape.qHeads());
    k = ggml.newTensor(context, dtype, shape.headDim(), shape.tokens(), shape.kvHeads());
    v = ggml.newTensor(context, dtype, shape.headDim(), shape.tokens(), shape.kvHeads());
    MemorySegment mask = ggml.newTensor(context, Dtype.F16.number, shape.tokens(), 1, 1);
    output = ggml.flashAttention(context, q, k, v, mask, (float) (1 / Math.sqrt(shape.headDim())));
    graph = ggml.newGraph(context, output);
    buffer = ggml.allocate(context);
    if (Ggml.isNull(buffer)) {
      ggml.freeContext(context);
      throw new IllegalStateException("ggml got no memory for " + shape);
    }
    ggml.clear(buffer);
    fill();
  }

  /** Standard normal rows, each K and V head from a seed of its own, on all cores. */
  private void fill() throws Throwable {
    try (Arena arena = Arena.ofConfined()) {
      float[] queries = normal(new SplittableRandom(SEED), shape.qHeads() * shape.headDim());
      ggml.set(q, arena.allocateFrom(JAVA_FLOAT, queries), 0, 4L * queries.length);
    }
    IntStream.range(0, 2 * shape.kvHeads())
        .parallel()
        .forEach(task -> {
          try {
            fillHead(task % 2 == 0 ? k : v, task / 2, new SplittableRandom(SEED + 1 + task));
          } catch (Throwable e) {
            throw new IllegalStateException("ggml refused rows: " + e, e);
          }
        });
  }

  private void fillHead(MemorySegment tensor, int head, SplittableRandom random) throws Throwable {
    long rowBytes = shape.dtype().rowBytes(shape.headDim());
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment rows = arena.allocate(4L * CHUNK_ROWS * shape.headDim(), 64);
      MemorySegment converted = arena.allocate(CHUNK_ROWS * rowBytes, 64);
      for (int from = 0; from < shape.tokens(); from += CHUNK_ROWS) {
        int count = Math.min(CHUNK_ROWS, shape.tokens() - from);
        float[] values = normal(random, count * shape.headDim());
        MemorySegment.copy(values, 0, rows, JAVA_FLOAT, 0, values.length);
        long bytes = ggml.convert(shape.dtype(), rows, converted, count, shape.headDim());
        if (bytes != count * rowBytes) {
          throw new IllegalStateException(bytes + " bytes for " + count + " rows of " + rowBytes);
        }
        ggml.set(tensor, converted, rowOffset(head, from), bytes);
      }
    }
  }

  private long rowOffset(int head, int token) {
    return ((long) head * shape.tokens() + token) * shape.dtype().rowBytes(shape.headDim());
  }

  private static float[] normal(SplittableRandom random, int length) {
    float[] values = new float[length];
    for (int i = 0; i < length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  /**
   * Nanoseconds of {@code runs} computations. The threads are up before the clock starts, and gone
   * afterwards: idle threads of ggml spin for a while, which would slow whatever is measured next.
   */
  long runNs(int runs) throws Throwable {
    try (Ggml.Threads _ = ggml.startThreads(shape.threads())) {
      long startNs = System.nanoTime();
      for (int run = 0; run < runs; run++) {
        ggml.compute(graph);
      }
      return System.nanoTime() - startNs;
    }
  }

  /**
   * Computes once, and the last q head again in double precision from the very bytes of K and V.
   * Returns the largest difference as a share of the largest value.
   */
  double check() throws Throwable {
    runNs(1);
    try (Arena arena = Arena.ofConfined()) {
      int head = shape.qHeads() - 1;
      float[] query = row(arena, q, head);
      float[] got = row(arena, output, head);
      double[] expected = expected(query);
      double largest = 0;
      double difference = 0;
      for (int d = 0; d < expected.length; d++) {
        largest = Math.max(largest, Math.abs(expected[d]));
        difference = Math.max(difference, Math.abs(expected[d] - got[d]));
      }
      double error = difference / largest;
      double tolerance = shape.dtype().tolerance(shape.tokens());
      if (!(error <= tolerance)) { // NaN too
        throw new IllegalStateException(
            "the output is off by " + error + "; tolerance " + tolerance + " for " + shape);
      }
      return error;
    }
  }

  private float[] row(Arena arena, MemorySegment tensor, int index) throws Throwable {
    long bytes = 4L * shape.headDim();
    MemorySegment row = arena.allocate(bytes, 64);
    ggml.get(tensor, row, index * bytes, bytes);
    return row.toArray(JAVA_FLOAT);
  }

  private double[] expected(float[] query) throws Throwable {
    double[] weights = new double[shape.tokens()];
    forEachRow(
        k,
        (token, key) -> {
          double dot = 0;
          for (int d = 0; d < key.length; d++) {
            dot += (double) query[d] * key[d];
          }
          weights[token] = dot / Math.sqrt(key.length);
        });
    double max = Arrays.stream(weights).max().orElseThrow();
    double sum = 0;
    for (int token = 0; token < weights.length; token++) {
      weights[token] = Math.exp(weights[token] - max);
      sum += weights[token];
    }
    double total = sum;
    double[] result = new double[shape.headDim()];
    forEachRow(
        v,
        (token, value) -> {
          for (int d = 0; d < result.length; d++) {
            result[d] += weights[token] / total * value[d];
          }
        });
    return result;
  }

  private interface RowVisitor {
    /** {@code row} is valid during the call. */
    void at(int token, float[] row);
  }

  /** The decoded rows of the last KV head. */
  private void forEachRow(MemorySegment tensor, RowVisitor visitor) throws Throwable {
    long rowBytes = shape.dtype().rowBytes(shape.headDim());
    float[] row = new float[shape.headDim()];
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment rows = arena.allocate(CHUNK_ROWS * rowBytes, 64);
      for (int from = 0; from < shape.tokens(); from += CHUNK_ROWS) {
        int count = Math.min(CHUNK_ROWS, shape.tokens() - from);
        ggml.get(tensor, rows, rowOffset(shape.kvHeads() - 1, from), count * rowBytes);
        for (int i = 0; i < count; i++) {
          shape.dtype().decode(rows, i * rowBytes, row);
          visitor.at(from + i, row);
        }
      }
    }
  }

  @Override
  public void close() {
    ggml.freeBuffer(buffer);
    ggml.freeContext(context);
  }
}

/**
 * The few functions of ggml's C API (ggml.h, ggml-backend.h, ggml-cpu.h) that are needed, and the
 * CPU backend. The libraries stay loaded until the process ends.
 */
final class Ggml {
  static final int TYPE_F32 = 0;
  private static final int DEVICE_CPU = 0;
  private static final int STATUS_SUCCESS = 0;
  private static final long TENSORS_MAX = 16;

  /** More than struct ggml_threadpool_params takes (512 flags and five scalars). */
  private static final long THREADPOOL_PARAMS_BYTES = 4096;

  private static final AddressLayout STRING =
      ADDRESS.withTargetLayout(MemoryLayout.sequenceLayout(Integer.MAX_VALUE, JAVA_BYTE));

  /** struct ggml_init_params: mem_size, mem_buffer, no_alloc. */
  private static final MemoryLayout INIT_PARAMS =
      MemoryLayout.structLayout(JAVA_LONG, ADDRESS, JAVA_BOOLEAN, MemoryLayout.paddingLayout(7));

  private final Linker linker = Linker.nativeLinker();
  private final SymbolLookup library;
  private final MemorySegment backend;
  private final String description;

  private final MethodHandle quantizeChunk;
  private final MethodHandle tensorSet;
  private final MethodHandle tensorGet;
  private final MethodHandle graphCompute;
  private final MethodHandle setThreads;
  private final MethodHandle threadpoolNew;
  private final MethodHandle threadpoolFree;
  private final MethodHandle setThreadpool;

  Ggml(Path libraryDirectory) throws Throwable {
    library = SymbolLookup.libraryLookup(libraryFile(libraryDirectory), Arena.global());
    backend = startBackend(libraryDirectory);
    quantizeChunk =
        function(
            "ggml_quantize_chunk",
            FunctionDescriptor.of(
                JAVA_LONG, JAVA_INT, ADDRESS, ADDRESS, JAVA_LONG, JAVA_LONG, JAVA_LONG, ADDRESS));
    tensorSet =
        function(
            "ggml_backend_tensor_set",
            FunctionDescriptor.ofVoid(ADDRESS, ADDRESS, JAVA_LONG, JAVA_LONG));
    tensorGet =
        function(
            "ggml_backend_tensor_get",
            FunctionDescriptor.ofVoid(ADDRESS, ADDRESS, JAVA_LONG, JAVA_LONG));
    graphCompute =
        function("ggml_backend_graph_compute", FunctionDescriptor.of(JAVA_INT, ADDRESS, ADDRESS));
    setThreads =
        cpuFunction("ggml_backend_set_n_threads", FunctionDescriptor.ofVoid(ADDRESS, JAVA_INT));
    threadpoolNew = cpuFunction("ggml_threadpool_new", FunctionDescriptor.of(ADDRESS, ADDRESS));
    threadpoolFree = cpuFunction("ggml_threadpool_free", FunctionDescriptor.ofVoid(ADDRESS));
    setThreadpool =
        cpuFunction("ggml_backend_cpu_set_threadpool", FunctionDescriptor.ofVoid(ADDRESS, ADDRESS));
    description = describe();
  }

  private static Path libraryFile(Path directory) throws IOException {
    List<Path> files;
    try (Stream<Path> list = Files.list(directory)) {
      files = list.filter(file -> file.getFileName().toString().matches("libggml\\..*so")).toList();
    }
    if (files.size() != 1) {
      throw new IOException("one libggml.*so is wanted in " + directory + ", there are " + files);
    }
    return files.getFirst().toAbsolutePath();
  }

  private MemorySegment startBackend(Path directory) throws Throwable {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment path = arena.allocateFrom(directory.toAbsolutePath().toString());
      function("ggml_backend_load_all_from_path", FunctionDescriptor.ofVoid(ADDRESS)).invoke(path);
    }
    MemorySegment device = cpuDevice();
    if (isNull(device)) {
      throw new IOException("ggml found no CPU library for this processor in " + directory);
    }
    return (MemorySegment)
        function("ggml_backend_dev_init", FunctionDescriptor.of(ADDRESS, ADDRESS, ADDRESS))
            .invoke(device, MemorySegment.NULL);
  }

  private MemorySegment cpuDevice() throws Throwable {
    return (MemorySegment)
        function("ggml_backend_dev_by_type", FunctionDescriptor.of(ADDRESS, JAVA_INT))
            .invoke(DEVICE_CPU);
  }

  /** Version, commit and the CPU library that ggml chose; checks the numbers of the types. */
  private String describe() throws Throwable {
    for (Dtype dtype : Dtype.values()) {
      String name = string("ggml_type_name", FunctionDescriptor.of(STRING, JAVA_INT), dtype.number);
      if (!name.equals(dtype.ggmlName)) {
        throw new IOException("ggml's type " + dtype.number + " is " + name + ", not " + dtype);
      }
    }
    String variant;
    try (Stream<String> maps = Files.lines(Path.of("/proc/self/maps"))) {
      variant =
          maps.map(line -> line.substring(line.lastIndexOf('/') + 1))
              .filter(file -> file.startsWith("libggml-cpu"))
              .findFirst()
              .orElse("unknown CPU library");
    }
    FunctionDescriptor constant = FunctionDescriptor.of(STRING);
    return "ggml %s (%s), %s"
        .formatted(string("ggml_version", constant), string("ggml_commit", constant), variant);
  }

  String description() {
    return description;
  }

  private String string(String name, FunctionDescriptor descriptor, Object... arguments)
      throws Throwable {
    Object address = function(name, descriptor).invokeWithArguments(arguments);
    return ((MemorySegment) address).getString(0);
  }

  private MethodHandle function(String name, FunctionDescriptor descriptor) {
    return linker.downcallHandle(library.findOrThrow(name), descriptor);
  }

  /** A function of the CPU backend: it is in a library of its own, which the registry knows. */
  private MethodHandle cpuFunction(String name, FunctionDescriptor descriptor) throws Throwable {
    MemorySegment registry =
        (MemorySegment)
            function("ggml_backend_dev_backend_reg", FunctionDescriptor.of(ADDRESS, ADDRESS))
                .invoke(cpuDevice());
    MethodHandle lookup =
        function(
            "ggml_backend_reg_get_proc_address", FunctionDescriptor.of(ADDRESS, ADDRESS, ADDRESS));
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment address = (MemorySegment) lookup.invoke(registry, arena.allocateFrom(name));
      if (isNull(address)) {
        throw new IOException("ggml's CPU library has no " + name);
      }
      return linker.downcallHandle(address, descriptor);
    }
  }

  static boolean isNull(MemorySegment address) {
    return address.address() == 0;
  }

  /** A context for the descriptions of one graph's tensors; {@link #allocate} gives them memory. */
  MemorySegment newContext() throws Throwable {
    FunctionDescriptor size = FunctionDescriptor.of(JAVA_LONG);
    long bytes =
        TENSORS_MAX * (long) function("ggml_tensor_overhead", size).invoke()
            + (long) function("ggml_graph_overhead", size).invoke();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment params = arena.allocate(INIT_PARAMS);
      params.set(JAVA_LONG, 0, bytes);
      params.set(ADDRESS, 8, MemorySegment.NULL);
      params.set(JAVA_BOOLEAN, 16, true);
      return (MemorySegment)
          function("ggml_init", FunctionDescriptor.of(ADDRESS, INIT_PARAMS)).invoke(params);
    }
  }

  void freeContext(MemorySegment context) {
    free("ggml_free", context);
  }

  void freeBuffer(MemorySegment buffer) {
    free("ggml_backend_buffer_free", buffer);
  }

  private void free(String name, MemorySegment address) {
    try {
      function(name, FunctionDescriptor.ofVoid(ADDRESS)).invoke(address);
    } catch (Throwable e) {
      throw new IllegalStateException(name + " failed", e);
    }
  }

  /** A contiguous tensor; {@code ne0} is the innermost dimension. */
  MemorySegment newTensor(MemorySegment context, int type, long ne0, long ne1, long ne2)
      throws Throwable {
    return (MemorySegment)
        function(
                "ggml_new_tensor_3d",
                FunctionDescriptor.of(ADDRESS, ADDRESS, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG))
            .invoke(context, type, ne0, ne1, ne2);
  }

  /** No ALiBi bias and no cap of the scores. */
  MemorySegment flashAttention(
      MemorySegment context,
      MemorySegment q,
      MemorySegment k,
      MemorySegment v,
      MemorySegment mask,
      float scale)
      throws Throwable {
    FunctionDescriptor descriptor =
        FunctionDescriptor.of(
            ADDRESS,
            ADDRESS,
            ADDRESS,
            ADDRESS,
            ADDRESS,
            ADDRESS,
            JAVA_FLOAT,
            JAVA_FLOAT,
            JAVA_FLOAT);
    return (MemorySegment)
        function("ggml_flash_attn_ext", descriptor).invoke(context, q, k, v, mask, scale, 0f, 0f);
  }

  MemorySegment newGraph(MemorySegment context, MemorySegment output) throws Throwable {
    MemorySegment graph =
        (MemorySegment)
            function("ggml_new_graph", FunctionDescriptor.of(ADDRESS, ADDRESS)).invoke(context);
    function("ggml_build_forward_expand", FunctionDescriptor.ofVoid(ADDRESS, ADDRESS))
        .invoke(graph, output);
    return graph;
  }

  /** Memory for all tensors of the context; null when there is none. */
  MemorySegment allocate(MemorySegment context) throws Throwable {
    return (MemorySegment)
        function("ggml_backend_alloc_ctx_tensors", FunctionDescriptor.of(ADDRESS, ADDRESS, ADDRESS))
            .invoke(context, backend);
  }

  void clear(MemorySegment buffer) throws Throwable {
    function("ggml_backend_buffer_clear", FunctionDescriptor.ofVoid(ADDRESS, JAVA_BYTE))
        .invoke(buffer, (byte) 0);
  }

  /** Converts fp32 rows with ggml's own rounding; returns the bytes written. */
  long convert(Dtype dtype, MemorySegment rows, MemorySegment into, long count, long rowLength)
      throws Throwable {
    return (long)
        quantizeChunk.invokeExact(
            dtype.number, rows, into, 0L, count, rowLength, MemorySegment.NULL);
  }

  void set(MemorySegment tensor, MemorySegment from, long offset, long bytes) throws Throwable {
    tensorSet.invokeExact(tensor, from, offset, bytes);
  }

  void get(MemorySegment tensor, MemorySegment into, long offset, long bytes) throws Throwable {
    tensorGet.invokeExact(tensor, into, offset, bytes);
  }

  void compute(MemorySegment graph) throws Throwable {
    int status = (int) graphCompute.invokeExact(backend, graph);
    if (status != STATUS_SUCCESS) {
      throw new IllegalStateException("ggml's status is " + status);
    }
  }

  /** Threads for the backend with ggml's defaults; the calling thread is one of them. */
  Threads startThreads(int count) throws Throwable {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment params = arena.allocate(THREADPOOL_PARAMS_BYTES, 64);
      function("ggml_threadpool_params_init", FunctionDescriptor.ofVoid(ADDRESS, JAVA_INT))
          .invoke(params, count);
      MemorySegment pool = (MemorySegment) threadpoolNew.invokeExact(params);
      if (isNull(pool)) {
        throw new IllegalStateException("ggml got no " + count + " threads");
      }
      setThreads.invokeExact(backend, count);
      setThreadpool.invokeExact(backend, pool);
      return new Threads(pool);
    }
  }

  /** Running threads; closing ends them. */
  final class Threads implements AutoCloseable {
    private final MemorySegment pool;

    private Threads(MemorySegment pool) {
      this.pool = pool;
    }

    @Override
    public void close() {
      try {
        setThreadpool.invokeExact(backend, MemorySegment.NULL);
        threadpoolFree.invokeExact(pool);
      } catch (Throwable e) {
        throw new IllegalStateException("ggml's threads did not end", e);
      }
    }
  }
}
