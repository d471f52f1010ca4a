package io.kvtier.gpuworker.tornado;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.gpuworker.core.MassHistogram;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import uk.ac.manchester.tornado.api.GridScheduler;
import uk.ac.manchester.tornado.api.KernelContext;
import uk.ac.manchester.tornado.api.TaskGraph;
import uk.ac.manchester.tornado.api.TornadoExecutionPlan;
import uk.ac.manchester.tornado.api.WorkerGrid1D;
import uk.ac.manchester.tornado.api.enums.DataTransferMode;
import uk.ac.manchester.tornado.api.exceptions.TornadoExecutionPlanException;
import uk.ac.manchester.tornado.api.exceptions.TornadoInternalError;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/**
 * What TornadoVM miscompiles without a word, and the forms that are right. The kernels use these
 * forms alone; should a construct come out right one day, its test says so, and the form may go.
 */
class ConstructsTest {
  private static final int N = 4096;

  /** Unsigned shift: becomes a signed one without its mask. */
  static void unsignedShift(KernelContext context, IntArray in, IntArray wrong, IntArray right) {
    int i = context.globalIdx;
    int x = in.get(i);
    wrong.set(i, x >>> 28);
    right.set(i, (x >> 28) & 15);
  }

  @Test
  void shiftsAreSignedAndMasked() {
    IntArray in = randomInts();
    IntArray wrong = new IntArray(N);
    IntArray right = new IntArray(N);
    run("unsignedShift", ConstructsTest::unsignedShift, in, wrong, right);
    boolean same = true;
    for (int i = 0; i < N; i++) {
      assertThat(right.get(i)).isEqualTo(in.get(i) >>> 28);
      same &= wrong.get(i) == in.get(i) >>> 28;
    }
    assertThat(same).as(">>> is right now").isFalse();
  }

  /**
   * A local array that is handed to a method: indexed in bytes, with the header of a Java array.
   */
  static int element(int[] array, int index) {
    return array[index];
  }

  static void localInMethod(KernelContext context, IntArray in, IntArray wrong, IntArray right) {
    int lane = context.localIdx;
    int i = context.globalIdx;
    int[] local = context.allocateIntLocalArray(1024);
    for (int k = lane; k < 1024; k += StepLayout.GROUP) {
      local[k] = k;
    }
    context.localBarrier();
    int index = in.get(i) & 63;
    wrong.set(i, element(local, index));
    right.set(i, local[index]);
  }

  @Test
  void localArraysAreReadWhereTheyAreMade() {
    IntArray in = randomInts();
    IntArray wrong = new IntArray(N);
    IntArray right = new IntArray(N);
    run("localInMethod", ConstructsTest::localInMethod, in, wrong, right);
    boolean same = true;
    for (int i = 0; i < N; i++) {
      assertThat(right.get(i)).isEqualTo(in.get(i) & 63);
      same &= wrong.get(i) == (in.get(i) & 63);
    }
    assertThat(same).as("local arrays can be handed to methods now").isFalse();
  }

  /** fp16 through the library's method becomes a conversion of the integer. */
  static void halves(KernelContext context, IntArray in, FloatArray right) {
    int i = context.globalIdx;
    right.set(i, Coded.half(in, 0, i));
  }

  /** Every finite fp16 number is read to the bit, by the kernel and in Java. */
  @Test
  void halvesAreReadToTheBit() {
    int numbers = 1 << 16;
    IntArray in = new IntArray(numbers / 2);
    for (int i = 0; i < numbers / 2; i++) {
      in.set(i, 2 * i | (2 * i + 1) << 16);
    }
    FloatArray right = new FloatArray(numbers);
    TaskGraph graph =
        new TaskGraph("halves")
            .transferToDevice(1, in)
            .task("t", ConstructsTest::halves, new KernelContext(), in, right)
            .transferToHost(1, right);
    Kernel.run(graph, "halves.t", numbers / StepLayout.GROUP);
    for (int bits = 0; bits < numbers; bits++) {
      float expected = Float.float16ToFloat((short) bits);
      if (Float.isFinite(expected)) {
        assertThat(right.get(bits)).isEqualTo(expected);
        assertThat(Coded.half(in, 0, bits)).isEqualTo(expected);
      }
    }
  }

  static void exactRows(
      KernelContext context, IntArray in, FloatArray constants, FloatArray four, FloatArray two) {
    int i = context.globalIdx;
    four.set(i, Coded.exact(in, 0, i, 4, constants));
    two.set(i, Coded.exact(in, 0, i, 2, constants));
  }

  /** fp32 and bf16 are read to the bit, but for subnormals, which count as 0. */
  @Test
  void exactRowsAreReadToTheBit() {
    IntArray in = randomInts();
    FloatArray constants = CodedHead.constants();
    FloatArray four = new FloatArray(N);
    FloatArray two = new FloatArray(N);
    TaskGraph graph =
        new TaskGraph("exact")
            .transferToDevice(1, in, constants)
            .task("t", ConstructsTest::exactRows, new KernelContext(), in, constants, four, two)
            .transferToHost(1, four, two);
    Kernel.run(graph, "exact.t", N / StepLayout.GROUP);
    for (int i = 0; i < N; i++) {
      requireSame(four.get(i), Float.intBitsToFloat(in.get(i)));
      int half = (in.get(i / 2) >>> (i % 2 * 16)) & 0xffff;
      requireSame(two.get(i), Float.intBitsToFloat(half << 16));
    }
  }

  private static void requireSame(float actual, float expected) {
    if (Float.isFinite(expected)) {
      float flushed = Math.abs(expected) < 0x1p-120f ? actual : expected;
      assertThat(actual).isEqualTo(flushed);
    }
  }

  static void buckets(
      KernelContext context, FloatArray masses, FloatArray constants, IntArray buckets) {
    int i = context.globalIdx;
    buckets.set(i, Coded.bucketOf(masses.get(i), constants));
  }

  /** The histogram's buckets without a look at the bits. */
  @Test
  void bucketsAreTheHistograms() {
    FloatArray masses = new FloatArray(N);
    SplittableRandom random = new SplittableRandom(4);
    for (int i = 0; i < N; i++) {
      masses.set(i, (float) Math.pow(2, -random.nextDouble(45)));
    }
    masses.set(0, 0f);
    masses.set(1, 1f);
    masses.set(2, 0x1p-40f);
    masses.set(3, Math.nextDown(1f));
    masses.set(4, Float.MIN_VALUE);
    IntArray buckets = new IntArray(N);
    FloatArray constants = CodedHead.constants();
    TaskGraph graph =
        new TaskGraph("buckets")
            .transferToDevice(1, masses, constants)
            .task("t", ConstructsTest::buckets, new KernelContext(), masses, constants, buckets)
            .transferToHost(1, buckets);
    Kernel.run(graph, "buckets.t", N / StepLayout.GROUP);
    for (int i = 0; i < N; i++) {
      assertThat(buckets.get(i)).as("%s", masses.get(i)).isEqualTo(bucketOf(masses.get(i)));
      assertThat(Coded.bucketOf(masses.get(i), constants)).isEqualTo(bucketOf(masses.get(i)));
    }
  }

  private static int bucketOf(float mass) {
    return MassHistogram.bucketOf(mass);
  }

  static void nibbles(KernelContext context, IntArray in, IntArray wrong, IntArray right) {
    int i = context.globalIdx;
    byte low = (byte) in.get(i);
    wrong.set(i, (low & 0xFF) - 8);
    right.set(i, (in.get(i) & 255) - 8);
  }

  /** A masked byte minus a number has lost its sign; a masked int has not. */
  @Test
  void maskedIntsKeepTheirSign() {
    IntArray in = randomInts();
    IntArray wrong = new IntArray(N);
    IntArray right = new IntArray(N);
    run("nibbles", ConstructsTest::nibbles, in, wrong, right);
    for (int i = 0; i < N; i++) {
      assertThat(right.get(i)).isEqualTo((in.get(i) & 255) - 8);
    }
  }

  static void counting(KernelContext context, IntArray in, IntArray counts, IntArray unused) {
    int i = context.globalIdx;
    context.atomicAdd(counts, in.get(i) & 7, 1);
    unused.set(i, 0);
  }

  /** Counting from all work-groups at once loses nothing. */
  @Test
  void countsAreAtomic() {
    IntArray in = randomInts();
    IntArray counts = new IntArray(N);
    counts.init(0);
    TaskGraph graph =
        new TaskGraph("counting")
            .transferToDevice(1, in, counts)
            .task("t", ConstructsTest::counting, new KernelContext(), in, counts, new IntArray(N))
            .transferToHost(1, counts);
    Kernel.run(graph, "counting.t", N / StepLayout.GROUP);
    int[] expected = new int[8];
    for (int i = 0; i < N; i++) {
      expected[in.get(i) & 7]++;
    }
    for (int i = 0; i < 8; i++) {
      assertThat(counts.get(i)).isEqualTo(expected[i]);
    }
  }

  /** An array of a thread's own holds anything at first. */
  static void ownArray(KernelContext context, IntArray in, IntArray unused, IntArray right) {
    int i = context.globalIdx;
    int[] own = new int[8];
    for (int k = 0; k < 8; k++) {
      own[k] = 0;
    }
    for (int k = 0; k < 16; k++) {
      int at = (in.get(i) >> k) & 7;
      own[at] = own[at] + k;
    }
    right.set(i, own[0] * 3 + own[3] * 5 + own[7]);
    unused.set(i, 0);
  }

  @Test
  void ownArraysAreRightOnceSetToZero() {
    IntArray in = randomInts();
    IntArray right = new IntArray(N);
    run("ownArray", ConstructsTest::ownArray, in, new IntArray(N), right);
    for (int i = 0; i < N; i++) {
      int[] own = new int[8];
      for (int k = 0; k < 16; k++) {
        own[(in.get(i) >> k) & 7] += k;
      }
      assertThat(right.get(i)).isEqualTo(own[0] * 3 + own[3] * 5 + own[7]);
    }
  }

  static void firstOf(KernelContext context, IntArray count, IntArray out) {
    int i = context.globalIdx;
    out.set(i, i < count.get(0) ? 1 : 0);
  }

  /** A scalar is compiled in; what an array holds is read each time, in grids of any size. */
  @Test
  void sizesThatVaryAreReadFromArrays() throws TornadoExecutionPlanException {
    IntArray count = new IntArray(1);
    IntArray out = new IntArray(N);
    TaskGraph graph =
        new TaskGraph("sizes")
            .transferToDevice(DataTransferMode.EVERY_EXECUTION, count)
            .task("t", ConstructsTest::firstOf, new KernelContext(), count, out)
            .transferToHost(DataTransferMode.EVERY_EXECUTION, out);
    WorkerGrid1D grid = new WorkerGrid1D(N);
    grid.setLocalWork(StepLayout.GROUP, 1, 1);
    try (TornadoExecutionPlan plan = new TornadoExecutionPlan(graph.snapshot())) {
      plan.withGridScheduler(new GridScheduler("sizes.t", grid));
      for (int groups : new int[] {N / StepLayout.GROUP, 1, 3, N / StepLayout.GROUP}) {
        int threads = groups * StepLayout.GROUP;
        grid.setGlobalWork(threads, 1, 1);
        count.set(0, threads / 3);
        plan.execute();
        for (int i = 0; i < threads; i++) {
          assertThat(out.get(i)).as("%d of %d", i, threads).isEqualTo(i < threads / 3 ? 1 : 0);
        }
      }
    }
  }

  static void uncompilable(KernelContext context, IntArray in, IntArray out, IntArray unused) {
    int i = context.globalIdx;
    out.set(i, (int) (Float.intBitsToFloat(in.get(i)) * 3f));
    unused.set(i, 0);
  }

  /** With TornadoVM's own setting it would be run for its first element, in Java. */
  @Test
  void aKernelThatDoesNotCompileIsAnError() {
    IntArray in = randomInts();
    assertThatThrownBy(() ->
            run("uncompilable", ConstructsTest::uncompilable, in, new IntArray(N), new IntArray(N)))
        .isInstanceOf(TornadoInternalError.class);
    assertThat(System.getProperty("tornado.recover.bailout")).isEqualTo("False");
  }

  private static IntArray randomInts() {
    IntArray ints = new IntArray(N);
    SplittableRandom random = new SplittableRandom(3);
    for (int i = 0; i < N; i++) {
      ints.set(i, random.nextInt());
    }
    return ints;
  }

  private static void run(
      String name,
      uk.ac.manchester.tornado.api.common.TornadoFunctions.Task4<
              KernelContext, IntArray, IntArray, IntArray>
          kernel,
      IntArray in,
      IntArray wrong,
      IntArray right) {
    TaskGraph graph =
        new TaskGraph(name)
            .transferToDevice(1, in)
            .task("t", kernel, new KernelContext(), in, wrong, right)
            .transferToHost(1, wrong, right);
    Kernel.run(graph, name + ".t", N / StepLayout.GROUP);
  }
}
