package io.kvtier.attention;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.kvtier.codec.Vectors;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.time.Duration;
import java.util.Arrays;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** The vector kernels give what the scalar ones give, and what is broken is seen to be. */
class KernelsParityTest {
  @BeforeEach
  void vectorsAreThere() {
    assumeTrue(Vectors.enabled(), Vectors::description);
  }

  @ParameterizedTest
  @CsvSource({
    "16, 1", "64, 1", "64, 4", "80, 2", "80, 5", "96, 3", "96, 8", "128, 1", "128, 4", "128, 7",
    "256, 4", "256, 6"
  })
  void everyKernelAgrees(int headDim, int group) {
    for (KernelCase.Kind kind : KernelCase.Kind.values()) {
      try (KernelCase given = new KernelCase(headDim, group, kind)) {
        given.requireParity(VectorKernels.INSTANCE);
      }
    }
  }

  static Stream<Arguments> plantedBugs() {
    return Stream.of(
        bug("fillTables", "the table of another query", args -> with(args, 1, 0)),
        bug("sketchScores", "a row of planes off", args -> moved(args, 1, 64, 0, 0, 0)),
        bug("sketchScores", "scales of the next token", args -> moved(args, 1, 0, 2, 0, 0)),
        bug("sketchScores", "one plane for two", args -> with(args, 3, 3 - (int) args[3])),
        bug("sketchWeights", "a mean read one element late", args -> moved(args, 1, 0, 0, 2, 0)),
        bug("sketchWeights", "the last page left out", args -> with(args, 4, (int) args[4] - 1)),
        bug("sketchWeights", "the page before", args -> with(args, 2, before((long[]) args[2]))),
        bug("sketchWeights", "the next token's place", args -> with(args, 9, (long) args[9] + 2)),
        bug("sketchWeights", "another reference", args -> with(args, 8, 0)),
        bug("exactScores", "fine planes a row off", args -> moved(args, 1, 0, 0, 0, 64)),
        bug("exactScores", "tokens not wanted", args -> with(args, 4, ~(long) args[4])),
        bug("weigh", "another reference", args -> with(args, 2, (float) args[2] + .01f)),
        bug("max", "the last score forgotten", args -> with(args, 2, (int) args[2] - 1)),
        bug("maxima", "the last query forgotten", args -> with(args, 1, (int) args[1] - 1)),
        bug("weighPage", "the last query forgotten", args -> with(args, 1, (int) args[1] - 1)),
        bug(
            "weighPage",
            "references of another query",
            args -> with(args, 2, back((float[]) args[2]))),
        bug("addValues", "rows one token late", args -> values(args, 0, 1)),
        bug("addValues", "scales one token late", args -> values(args, 2, 0)),
        bug("chosenScores", "rows a byte late", args -> with(args, 2, plus((long[]) args[2], 1))),
        bug("chosenScores", "means of no page's own", args -> with(args, 3, new int[64])),
        bug("chosenScores", "the last token left out", args -> with(args, 5, (int) args[5] - 1)),
        bug("addChosen", "rows a byte late", args -> with(args, 1, plus((long[]) args[1], 1))),
        bug("addChosen", "weights of the next token", args -> with(args, 6, (int) args[6] + 1)),
        bug("addChosen", "the last token left out", args -> with(args, 3, (int) args[3] - 1)),
        bug("addRestScores", "a row a byte late", args -> with(args, 1, (long) args[1] + 1)),
        bug("addRestScores", "another token's", args -> with(args, 5, (int) args[5] + 1)),
        bug("addRestScores", "half the step", args -> with(args, 2, (float) args[2] / 2)),
        bug("addRest", "a row a byte late", args -> with(args, 2, (long) args[2] + 1)),
        bug("addRest", "weights of the next token", args -> with(args, 5, (int) args[5] + 1)),
        bug("addMeans", "a page left out", args -> with(args, 2, (int) args[2] - 1)),
        bug("addMeans", "weights of the next page", args -> with(args, 7, (int) args[7] + 1)),
        bug("rowScores", "rows one element late", args -> with(args, 1, (long) args[1] + 2)),
        bug("addRows", "the first row left out", args -> with(args, 7, (int) args[7] + 1)),
        bug("candidates", "a floor too high", args -> with(args, 5, (float) args[5] * 2)),
        bug("candidates", "shares of another query", args -> with(args, 4, (int) args[4] + 1)),
        bug("candidates", "weights of the next token", args -> with(args, 0, (long) args[0] + 2)),
        bug("candidates", "positions of another page", args -> with(args, 6, (int) args[6] + 1)));
  }

  private static Arguments bug(String kernel, String what, UnaryOperator<Object[]> change) {
    return Arguments.of(kernel, what, change);
  }

  private static Object[] with(Object[] args, int index, Object value) {
    args[index] = value;
    return args;
  }

  private static float[] back(float[] numbers) {
    float[] turned = new float[numbers.length];
    for (int i = 0; i < numbers.length; i++) {
      turned[i] = numbers[numbers.length - 1 - i];
    }
    return turned;
  }

  private static long[] plus(long[] addresses, int more) {
    return Arrays.stream(addresses).map(address -> address + more).toArray();
  }

  private static long[] before(long[] addresses) {
    long[] moved = addresses.clone();
    System.arraycopy(addresses, 0, moved, 1, addresses.length - 1);
    return moved;
  }

  private static Object[] moved(
      Object[] args, int index, int planes, int scales, int mean, int fine) {
    HeadOffsets at = (HeadOffsets) args[index];
    return with(
        args,
        index,
        new HeadOffsets(
            at.headDim(),
            at.planes() + planes,
            at.keyScales() + scales,
            at.keyMean() + mean,
            at.valueMean(),
            at.fine() + fine,
            at.valueCodes(),
            at.valueScales()));
  }

  private static Object[] values(Object[] args, int scales, int rows) {
    HeadOffsets at = (HeadOffsets) args[0];
    return with(
        args,
        0,
        new HeadOffsets(
            at.headDim(),
            at.planes(),
            at.keyScales(),
            at.keyMean(),
            at.valueMean(),
            at.fine(),
            at.valueCodes() + rows * at.headDim() / 2,
            at.valueScales() + scales));
  }

  /** A kernel that reads or writes the wrong place: what a slip in an index does. */
  @ParameterizedTest(name = "{0}: {1}")
  @MethodSource("plantedBugs")
  void aPlantedBugIsCaught(String kernel, String what, UnaryOperator<Object[]> change) {
    Kernels planted =
        (Kernels)
            Proxy.newProxyInstance(
                Kernels.class.getClassLoader(),
                new Class<?>[] {Kernels.class},
                (proxy, method, args) -> {
                  Object[] given = method.getName().equals(kernel) ? change.apply(args) : args;
                  try {
                    return method.invoke(VectorKernels.INSTANCE, given);
                  } catch (InvocationTargetException e) {
                    throw e.getCause();
                  }
                });
    try (KernelCase given = new KernelCase(128, 5, KernelCase.Kind.GAUSSIAN)) {
      assertThatThrownBy(() -> given.requireParity(planted))
          .isInstanceOf(AssertionError.class)
          .hasMessageContaining(kernel);
    }
  }

  /** The rounding of the tables stays below what it is said to. */
  @ParameterizedTest
  @CsvSource({"64, 4", "80, 1", "128, 4", "256, 2"})
  void tablesAddLittleToTheSketchsError(int headDim, int group) {
    try (KernelCase given = new KernelCase(headDim, group, KernelCase.Kind.GAUSSIAN)) {
      for (int planes = 1; planes <= 2; planes++) {
        double both = Math.hypot(1, given.tableError(planes));
        assertThat(both).as("error with %d planes", planes).isBetween(1.0, 1.015);
      }
    }
  }

  /** Of a block of four queries, and of one behind it, whose tables lie otherwise. */
  @Test
  void copiedTablesAreTheTables() {
    int headDim = 80;
    GroupQuery query = new GroupQuery(5, headDim);
    float[] queries = new float[5 * headDim];
    for (int i = 0; i < queries.length; i++) {
      queries[i] = (float) Math.sin(i);
    }
    query.load(queries, 0, true, Kernels.best());
    int[] copied = new int[2 * headDim];
    for (int g = 0; g < 5; g++) {
      query.copyTables(g, copied, 0);
      for (int table = 0; table < headDim / 2; table++) {
        for (int entry = 0; entry < GroupQuery.ENTRIES; entry++) {
          byte expected = OffHeap.ALL.get(JAVA_BYTE, query.table(g, table) + entry);
          assertThat((byte) (copied[4 * table + entry / 4] >> (8 * (entry % 4))))
              .isEqualTo(expected);
        }
      }
    }
    assertThat(query.table(4, headDim / 2 - 1) + GroupQuery.TABLE_BYTES)
        .isEqualTo(query.tables().address() + query.tables().byteSize());
  }

  @Test
  void noKernelAllocatesOnceCompiled() {
    var threads =
        (com.sun.management.ThreadMXBean) java.lang.management.ManagementFactory.getThreadMXBean();
    try (KernelCase given = new KernelCase(128, 4, KernelCase.Kind.GAUSSIAN)) {
      long allocated = Long.MAX_VALUE;
      long calls = 0;
      // Compiling is done when it is done: on a busy machine later than on an idle one.
      long deadlineNs = System.nanoTime() + Duration.ofSeconds(90).toNanos();
      while (allocated > 0 && System.nanoTime() < deadlineNs) {
        long before = threads.getCurrentThreadAllocatedBytes();
        for (int i = 0; i < 1000; i++) {
          given.runAll(VectorKernels.INSTANCE);
        }
        allocated = threads.getCurrentThreadAllocatedBytes() - before;
        calls += 1000;
      }
      assertThat(allocated)
          .as("bytes in 1000 calls of every kernel, after %d calls", calls)
          .isLessThan(1000);
    }
  }
}
