package io.kvtier.cachetier.chronicle;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.KvtierException;
import io.kvtier.page.PageKey;
import io.kvtier.page.Pages;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.MappedByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/**
 * Kills a process that puts, evicts and deletes, {@code -Dkvtier.kill.rounds} times. Afterwards the
 * store opens within the time limit; every page whose put had returned is there, byte for byte;
 * every page whose delete had returned is not; of those in flight each is there whole or not at
 * all; and the store takes pages again.
 */
final class ChroniclePageStoreKillTest {
  private static final int ROUNDS = Integer.getInteger("kvtier.kill.rounds", 3);
  private static final int LINES_MAX = 400;

  @TempDir Path home;

  @Test
  @Timeout(value = 1800, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
  void whatWasAcknowledgedSurvivesTheProcess() throws Exception {
    long seed = System.nanoTime();
    System.out.println("whatWasAcknowledgedSurvivesTheProcess seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    for (int round = 0; round < ROUNDS; round++) {
      Path directory = home.resolve("store-" + round);
      Path states = home.resolve("states-" + round);
      killAfter(1 + random.nextInt(LINES_MAX), directory, states);
      check(round, directory, DoomedWriter.states(states));
      remove(directory);
      Files.delete(states);
    }
  }

  /** A hundred rounds need not fill the disk. */
  private static void remove(Path directory) throws IOException {
    try (Stream<Path> files = Files.list(directory)) {
      for (Path file : files.toList()) {
        Files.delete(file);
      }
    }
    Files.delete(directory);
  }

  private static void killAfter(int lines, Path directory, Path states)
      throws IOException, InterruptedException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
    command.addAll(List.of("-cp", System.getProperty("java.class.path")));
    command.addAll(List.of(DoomedWriter.class.getName(), directory.toString(), states.toString()));
    Process writer = new ProcessBuilder(command).redirectErrorStream(true).start();
    try (BufferedReader out =
        new BufferedReader(new InputStreamReader(writer.getInputStream(), UTF_8))) {
      StringBuilder noise = new StringBuilder();
      for (int seen = 0; seen < lines; ) {
        String line = out.readLine();
        assertThat(line).as("a line of progress; so far %s", noise).isNotNull();
        if (line.matches("[0-9]+")) {
          seen++;
        } else {
          noise.append(line).append('\n');
        }
      }
    } finally {
      writer.destroyForcibly().waitFor();
    }
  }

  private static void check(int round, Path directory, MappedByteBuffer states) {
    int stored = 0;
    int gone = 0;
    int inFlight = 0;
    int inFlightThere = 0;
    long begun = System.nanoTime();
    try (ChroniclePageStore store = ChroniclePageStore.open(directory, DoomedWriter.BYTES_MAX)) {
      long openMs = (System.nanoTime() - begun) / 1_000_000;
      for (int index = 0; index < DoomedWriter.INDEX_MAX; index++) {
        byte state = states.get(index);
        if (state == DoomedWriter.UNTOUCHED) {
          continue;
        }
        boolean there = isThereWhole(store, index);
        switch (state) {
          case DoomedWriter.STORED -> {
            assertThat(there).as("acknowledged page %d is there", index).isTrue();
            stored++;
          }
          case DoomedWriter.DELETED -> {
            assertThat(there).as("deleted page %d is there", index).isFalse();
            gone++;
          }
          default -> {
            inFlight++;
            inFlightThere += there ? 1 : 0;
          }
        }
      }
      System.out.printf(
          "round %d: open %d ms, stored %d, removed %d, in flight %d of which there %d, %s%n",
          round, openMs, stored, gone, inFlight, inFlightThere, store.recovery());
      assertThat(stored).isPositive();
      assertThat(inFlight).isLessThanOrEqualTo(2);
      assertThat(store.pages()).isEqualTo(stored + inFlightThere);
      assertThat(store.recovery().pagesKept()).isEqualTo(store.pages());
      fillToTheBound(store);
    }
  }

  private static boolean isThereWhole(ChroniclePageStore store, int index) {
    PageKey key = DoomedWriter.keyOf(index);
    UnsafeBuffer expected = DoomedWriter.pageOf(index);
    Boolean whole =
        store.read(
            key,
            (page, offset, length) ->
                Pages.verify(key, page, offset, length) == Pages.Flaw.NONE
                    && expected.equals(new UnsafeBuffer(page, offset, length)));
    assertThat(whole).as("page %d is whole", index).isNotEqualTo(false);
    return whole != null;
  }

  /** No space has been lost: what the bound leaves can be filled. */
  private static void fillToTheBound(ChroniclePageStore store) {
    int index = DoomedWriter.INDEX_MAX;
    boolean full = false;
    while (!full) {
      UnsafeBuffer page = DoomedWriter.pageOf(index);
      boolean fits = store.bytesUsed() + page.capacity() <= store.bytesMax();
      try {
        store.put(DoomedWriter.keyOf(index++), page, 0, page.capacity());
        assertThat(fits).isTrue();
      } catch (KvtierException e) {
        assertThat(fits).as("refused although it fits: %s", e.getMessage()).isFalse();
        full = true;
      }
    }
  }
}
