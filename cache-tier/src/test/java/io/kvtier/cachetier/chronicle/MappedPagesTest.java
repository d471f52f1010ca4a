package io.kvtier.cachetier.chronicle;

import static io.kvtier.cachetier.TestPages.ROT4;
import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.mapped.MappedPages;
import io.kvtier.mapped.PageIndexFlyweight;
import io.kvtier.page.PageKey;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
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

/** A store's files, read by processes that it does not know of. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class MappedPagesTest {
  private static final long BYTES_MAX = 16 << 20;
  private static final long READ_PAUSE_NS = 20_000;

  @TempDir Path directory;

  private static MappedPages mapped(ChroniclePageStore store) {
    return MappedPages.open(store.directory(), store.instance()).orElseThrow();
  }

  /** The page as it was all the time; empty: not to be read here. */
  private static byte[] read(MappedPages pages, PageKey key) {
    byte[][] copy = new byte[1][];
    boolean there =
        pages.read(
            key,
            (page, length) -> {
              copy[0] = new byte[length];
              // In two halves, with time between them for whoever may take the page away.
              page.getBytes(length / 2, copy[0], length / 2, length - length / 2);
              long startNs = System.nanoTime();
              while (System.nanoTime() - startNs < READ_PAUSE_NS) {
                Thread.onSpinWait();
              }
              page.getBytes(0, copy[0], 0, length / 2);
              return true;
            });
    return there ? copy[0] : new byte[0];
  }

  @Test
  void pagesAreReadAsTheyArePutAndGoneWhenTheyAreDeleted() {
    try (ChroniclePageStore store = ChroniclePageStore.open(directory, BYTES_MAX)) {
      MappedPages pages = mapped(store);
      for (int i = 0; i < 500; i++) {
        UnsafeBuffer page = DoomedWriter.pageOf(i);
        store.put(DoomedWriter.keyOf(i), page, 0, page.capacity());
      }
      MappedPages later = mapped(store);
      for (int i = 0; i < 500; i++) {
        assertThat(read(later, DoomedWriter.keyOf(i)))
            .isEqualTo(DoomedWriter.pageOf(i).byteArray());
        assertThat(later.has(DoomedWriter.keyOf(i))).isTrue();
      }
      assertThat(read(later, DoomedWriter.keyOf(500))).isEmpty();
      for (int i = 0; i < 500; i += 2) {
        store.delete(DoomedWriter.keyOf(i));
      }
      for (int i = 0; i < 500; i++) {
        assertThat(read(later, DoomedWriter.keyOf(i)).length > 0).isEqualTo(i % 2 == 1);
      }
      assertThat(pages.ended()).isFalse();
      assertThat(later.ended()).isFalse();
    }
  }

  @Test
  void anotherRunsFilesAreNotBelieved() {
    MappedPages first;
    PageKey key = key(1, 0, 0, ROT4);
    try (ChroniclePageStore store = ChroniclePageStore.open(directory, BYTES_MAX)) {
      store.put(key, page(ROT4, 0, 1), 0, ROT4.pageLength());
      first = mapped(store);
      assertThat(read(first, key)).hasSize(ROT4.pageLength());
    }
    assertThat(first.ended()).isTrue();
    assertThat(read(first, key)).isEmpty();
    try (ChroniclePageStore store = ChroniclePageStore.open(directory, BYTES_MAX)) {
      assertThat(read(first, key)).isEmpty();
      assertThat(read(mapped(store), key)).isEqualTo(page(ROT4, 0, 1).byteArray());
      MappedPages wrong = MappedPages.open(directory, store.instance() - 1).orElseThrow();
      assertThat(read(wrong, key)).isEmpty();
    }
    assertThat(MappedPages.open(directory.resolve("none"), 1)).isEmpty();
  }

  @Test
  void aReaderThatIsStuckOrKilledHoldsNobodyUp() throws Exception {
    try (ChroniclePageStore store = ChroniclePageStore.open(directory, BYTES_MAX)) {
      UnsafeBuffer page = DoomedWriter.pageOf(0);
      store.put(DoomedWriter.keyOf(0), page, 0, page.capacity());
      Process reader =
          start(StuckReader.class, directory.toString(), Long.toString(store.instance()));
      try (BufferedReader out = output(reader)) {
        String line = out.readLine();
        while (line != null && !line.startsWith("reading")) {
          line = out.readLine();
        }
        assertThat(line).isNotNull();
        turnOver(store);
        reader.destroyForcibly().waitFor();
        turnOver(store);
      } finally {
        reader.destroyForcibly();
      }
    }
  }

  /** Every page's place is used by another again, the stuck reader's among them. */
  private static void turnOver(ChroniclePageStore store) {
    long startNs = System.nanoTime();
    for (int i = 0; i < 3000; i += 3) {
      UnsafeBuffer page = DoomedWriter.pageOf(i);
      store.put(DoomedWriter.keyOf(i), page, 0, page.capacity());
      assertThat(store.delete(DoomedWriter.keyOf(i))).isTrue();
    }
    assertThat(System.nanoTime() - startNs).isLessThan(10_000_000_000L);
  }

  /** A store in another process that puts, evicts and deletes, is killed, and is opened again. */
  @Test
  void noByteIsWrongWhileAnotherProcessTurnsPagesOverAndDies() throws Exception {
    long seed = System.nanoTime();
    System.out.println("noByteIsWrongWhileAnotherProcessTurnsPagesOverAndDies seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    Path files = directory.resolve("pages");
    Path statesFile = directory.resolve("states");
    Process writer = start(DoomedWriter.class, files.toString(), statesFile.toString());
    MappedPages pages;
    int last = 0;
    try (BufferedReader out = output(writer)) {
      for (String line = out.readLine(); last < 2000; line = out.readLine()) {
        assertThat(line).isNotNull();
        last = line.matches("[0-9]+") ? Integer.parseInt(line) : last;
      }
      MappedByteBuffer states = DoomedWriter.states(statesFile);
      pages = MappedPages.open(files, instance(files)).orElseThrow();
      int there = 0;
      for (int line = 0; line < 60; line++) {
        while (out.ready()) {
          String next = out.readLine();
          last = next.matches("[0-9]+") ? Integer.parseInt(next) : last;
        }
        there += readSome(pages, states, random, last);
      }
      assertThat(there).isGreaterThan(1000);
      writer.destroyForcibly().waitFor();
      assertThat(readSome(pages, states, random, last)).isPositive();
    } finally {
      writer.destroyForcibly();
    }
    assertThat(pages.ended()).as("a killed store cannot say so").isFalse();
    try (ChroniclePageStore again = ChroniclePageStore.open(files, DoomedWriter.BYTES_MAX)) {
      assertThat(pages.ended()).isTrue();
      MappedPages anew = mapped(again);
      int there = 0;
      for (int index = Math.max(0, last - 2000); index < last; index++) {
        assertThat(read(pages, DoomedWriter.keyOf(index))).isEmpty();
        byte[] page = read(anew, DoomedWriter.keyOf(index));
        if (page.length > 0) {
          there++;
          assertThat(page).isEqualTo(DoomedWriter.pageOf(index).byteArray());
        }
      }
      assertThat(there).isPositive();
    }
  }

  private static int readSome(
      MappedPages pages, MappedByteBuffer states, SplittableRandom random, int last) {
    int there = 0;
    for (int i = 0; i < 100; i++) {
      int index = Math.max(0, last - random.nextInt(1500));
      boolean gone = states.get(index) == DoomedWriter.DELETED;
      byte[] page = read(pages, DoomedWriter.keyOf(index));
      if (page.length > 0) {
        there++;
        assertThat(gone).as("page %d was read though it had been deleted", index).isFalse();
        assertThat(page).as("page %d", index).isEqualTo(DoomedWriter.pageOf(index).byteArray());
      }
    }
    return there;
  }

  private static long instance(Path files) throws IOException {
    try (Stream<Path> all = Files.list(files)) {
      Path index =
          all.filter(path -> path.toString().endsWith(PageIndexFlyweight.SUFFIX))
              .findFirst()
              .orElseThrow();
      try (FileChannel channel = FileChannel.open(index)) {
        ByteBuffer word = ByteBuffer.allocate(Long.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        channel.read(word, PageIndexFlyweight.INSTANCE_OFFSET);
        return word.getLong(0);
      }
    }
  }

  private static BufferedReader output(Process process) {
    return new BufferedReader(new InputStreamReader(process.getInputStream(), UTF_8));
  }

  private static Process start(Class<?> main, String... args) throws IOException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
    command.addAll(List.of("-cp", System.getProperty("java.class.path")));
    command.add(main.getName());
    command.addAll(List.of(args));
    return new ProcessBuilder(command).redirectErrorStream(true).start();
  }
}
