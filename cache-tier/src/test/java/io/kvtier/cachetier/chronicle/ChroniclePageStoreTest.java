package io.kvtier.cachetier.chronicle;

import static io.kvtier.cachetier.TestPages.ROT4;
import static io.kvtier.cachetier.TestPages.bytes;
import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PageStoreContractTest;
import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.Recovery;
import io.kvtier.cachetier.TestPages;
import io.kvtier.page.Section;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The contract, and what is Chronicle's: files, locks, recovery, segments. */
final class ChroniclePageStoreTest extends PageStoreContractTest {
  private static final long BYTES_MAX = 1 << 20;

  @TempDir Path home;

  @Override
  protected PageStore open(Path directory, long bytesMax) {
    return ChroniclePageStore.open(directory, bytesMax);
  }

  @Test
  void pagesSurviveAReopen() {
    for (int round = 0; round < 3; round++) {
      try (PageStore store = open(directory, BYTES_MAX)) {
        for (int i = 0; i < 20 * round; i++) {
          assertThat(get(store, key(i))).isEqualTo(bytes(i, 640 + 64 * (i % 3)));
        }
        for (int i = 20 * round; i < 20 * round + 20; i++) {
          put(store, i, 640 + 64 * (i % 3));
        }
        assertThat(store.pages()).isEqualTo(20 * round + 20);
      }
    }
    long used;
    try (PageStore store = open(directory, BYTES_MAX)) {
      used = store.bytesUsed();
    }
    try (PageStore store = open(directory, used - 640)) {
      assertThat(store.bytesUsed()).as("a lower bound keeps what is stored").isEqualTo(used);
      assertFull(store, 1000, 640);
      store.delete(key(0));
      store.delete(key(1));
      assertThat(put(store, 1000, 640)).isEqualTo(PutResult.STORED);
    }
  }

  private static void fill(PageStore store, int pages) {
    for (int i = 0; i < pages; i++) {
      store.put(key(1, i, 0, ROT4), page(ROT4, 0, i), 0, ROT4.pageLength());
    }
  }

  private static void assertCode(KvtierException e, Code code) {
    assertThat(e.code()).isEqualTo(code);
  }

  @Test
  void oneStoreADirectory() {
    try (ChroniclePageStore first = ChroniclePageStore.open(home, BYTES_MAX)) {
      assertThatThrownBy(() -> ChroniclePageStore.open(home, BYTES_MAX))
          .isInstanceOfSatisfying(KvtierException.class, e -> assertCode(e, Code.PRECONDITION))
          .hasMessage(
              "data directory %s is in use by process %d; stop that first, or give another"
                  + " directory",
              home, ProcessHandle.current().pid());
      fill(first, 3);
      assertThat(first.pages()).isEqualTo(3);
    }
    ChroniclePageStore.open(home, BYTES_MAX).close();
  }

  @Test
  void aHigherBoundNeedsAnEmptyDirectory() {
    try (ChroniclePageStore store = ChroniclePageStore.open(home, BYTES_MAX)) {
      fill(store, 3);
    }
    assertThatThrownBy(() -> ChroniclePageStore.open(home, BYTES_MAX + 1))
        .isInstanceOfSatisfying(KvtierException.class, e -> assertCode(e, Code.INVALID))
        .hasMessageContaining("tier bytes max is %d", BYTES_MAX + 1)
        .hasMessageContaining("laid out for at most %d", BYTES_MAX);
    try (ChroniclePageStore store = ChroniclePageStore.open(home, BYTES_MAX)) {
      assertThat(store.pages()).as("the refusal has changed nothing").isEqualTo(3);
      assertThat(store.recovery()).isEqualTo(Recovery.NONE);
      for (int i = 0; i < 3; i++) {
        store.delete(key(1, i, 0, ROT4));
      }
    }
    ChroniclePageStore.open(home, BYTES_MAX).close();
    ChroniclePageStore.open(home, 2 * BYTES_MAX).close();
  }

  @Test
  void moreThanTheDiskHoldsIsRefused() {
    assertThatThrownBy(() -> ChroniclePageStore.open(home, Long.MAX_VALUE))
        .isInstanceOfSatisfying(KvtierException.class, e -> assertCode(e, Code.EXHAUSTED))
        .hasMessageContaining("bytes free; tier bytes max is " + Long.MAX_VALUE);
  }

  @Test
  void lengthsAreBounded() {
    try (ChroniclePageStore store = ChroniclePageStore.open(home, BYTES_MAX)) {
      UnsafeBuffer bytes = new UnsafeBuffer(new byte[4096]);
      for (int i = 0; i < ChroniclePageStore.LENGTHS_MAX; i++) {
        assertThat(store.put(key(i), bytes, 0, 64 + i)).isEqualTo(PutResult.STORED);
      }
      long used = store.bytesUsed();
      assertThatThrownBy(() -> store.put(key(100), bytes, 0, 4096))
          .isInstanceOfSatisfying(KvtierException.class, e -> assertCode(e, Code.EXHAUSTED))
          .hasMessage(
              "tier has pages of 16 different lengths, which is its bound; it takes none of length"
                  + " 4096");
      assertThat(store.bytesUsed()).isEqualTo(used);
      assertThat(store.put(key(101), bytes, 0, 64)).isEqualTo(PutResult.STORED);
      store.delete(key(1));
    }
    try (ChroniclePageStore store = ChroniclePageStore.open(home, BYTES_MAX)) {
      assertThat(store.put(key(100), new UnsafeBuffer(new byte[4096]), 0, 4096))
          .as("a length without pages is forgotten at the next start")
          .isEqualTo(PutResult.STORED);
    }
  }

  private PageMap create(int pageLength, long entriesMax) throws IOException {
    return PageMap.create(home.resolve("map.new"), home.resolve("map"), pageLength, entriesMax);
  }

  /** Keys as adverse as can be: all entries in one segment of many. */
  @Test
  void aMapFitsItsEntriesWhateverTheirKeysAndTheyDoNotOverlap() throws IOException {
    int entriesMax = 8192;
    UnsafeBuffer bytes = new UnsafeBuffer(new byte[64]);
    TreeSet<Long> addresses = new TreeSet<>();
    try (PageMap map = create(64, entriesMax)) {
      for (int index = 0; addresses.size() < entriesMax; index++) {
        byte[] key = key(index).toBytes();
        if (map.segmentOf(key) == 0) {
          bytes.putInt(0, index);
          map.insert(key, new PageData(bytes, 0, 64));
          Long address = map.read(key, (page, at, length) -> page.addressOffset() + at);
          Integer content = map.read(key, (page, at, length) -> page.getInt(at));
          assertThat(content).isEqualTo(index);
          assertThat(address).isNotNull();
          addresses.add(address);
        }
      }
      assertThat(map.size()).isEqualTo(entriesMax);
    }
    long before = 0;
    for (long address : addresses) {
      assertThat(address - before).as("a key and a page apart").isGreaterThanOrEqualTo(64 + 32);
      before = address;
    }
  }

  /** What a page of a common geometry costs on disk beside its own bytes. */
  @Test
  void filesAreHardlyLongerThanTheirPages() throws IOException {
    int length = 70_016;
    int entriesMax = 1 << 16;
    try (PageMap map = create(length, entriesMax)) {
      assertThat((double) Files.size(home.resolve("map")) / length / entriesMax)
          .isBetween(1.0, 1.2);
      assertThat(map.size()).isZero();
    }
  }

  @Test
  void withoutTheCleanMarkEveryPageIsVerified() throws IOException {
    try (ChroniclePageStore store = ChroniclePageStore.open(home, BYTES_MAX)) {
      fill(store, 20);
    }
    Files.delete(home.resolve("clean"));
    try (ChroniclePageStore store = ChroniclePageStore.open(home, BYTES_MAX)) {
      assertThat(store.recovery()).isEqualTo(new Recovery(20, 0));
      assertThat(store.pages()).isEqualTo(20);
      assertThat(store.bytesUsed()).isEqualTo(20L * ROT4.pageLength());
    }
  }

  @Test
  void flawedPagesAreDroppedAndCounted() throws IOException {
    try (ChroniclePageStore store = ChroniclePageStore.open(home, BYTES_MAX)) {
      fill(store, 20);
    }
    Files.delete(home.resolve("clean"));
    flipInFile(page(ROT4, 0, 3));
    flipInFile(page(ROT4, 0, 17));
    try (ChroniclePageStore store = ChroniclePageStore.open(home, BYTES_MAX)) {
      assertThat(store.recovery()).isEqualTo(new Recovery(18, 2));
      assertThat(store.contains(key(1, 3, 0, ROT4))).isFalse();
      assertThat(store.contains(key(1, 17, 0, ROT4))).isFalse();
      assertThat(store.bytesUsed()).isEqualTo(18L * ROT4.pageLength());
      assertThat(store.put(key(1, 3, 0, ROT4), page(ROT4, 0, 3), 0, ROT4.pageLength()))
          .isEqualTo(PutResult.STORED);
    }
  }

  /** Flips the lowest bit of the last byte of the last section of a page, on disk. */
  private void flipInFile(UnsafeBuffer page) throws IOException {
    Path file = home.resolve("pages-" + ROT4.pageLength() + ".map");
    byte[] all = Files.readAllBytes(file);
    UnsafeBuffer bytes = new UnsafeBuffer(all);
    int length = page.capacity();
    int at = 0;
    while (!new UnsafeBuffer(bytes, at, length).equals(page)) {
      at += Long.BYTES;
    }
    int flipped = at + ROT4.offset(1, Section.V_MEAN);
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
      channel.write(ByteBuffer.wrap(new byte[] {(byte) (all[flipped] ^ 1)}), flipped);
    }
  }

  @Test
  void halfMadeFilesAreRemoved() throws IOException {
    Files.writeString(home.resolve("pages-640.map.new"), "half");
    try (ChroniclePageStore store = ChroniclePageStore.open(home, BYTES_MAX)) {
      assertThat(store.pages()).isZero();
      assertThat(home.resolve("pages-640.map.new")).doesNotExist();
    }
  }

  @Test
  void aTemporaryDirectoryGoesWithItsStore() throws IOException {
    Path directory;
    try (ChroniclePageStore store = ChroniclePageStore.openTemporary(BYTES_MAX)) {
      fill(store, 3);
      directory = store.directory();
      assertThat(directory).isDirectory();
    }
    assertThat(directory).doesNotExist();
  }

  @Test
  void aFileIsNotADirectory() throws IOException {
    Path file = Files.writeString(home.resolve("file"), "");
    assertThatThrownBy(() -> ChroniclePageStore.open(file, BYTES_MAX))
        .isInstanceOfSatisfying(KvtierException.class, e -> assertCode(e, Code.UNAVAILABLE))
        .hasMessageContaining("data directory " + file + " cannot be used");
  }

  @Test
  void valuesAreAlignedForTheVectorUnit() {
    try (ChroniclePageStore store = ChroniclePageStore.open(home, BYTES_MAX)) {
      fill(store, 20);
      assertThat(
              Stream.iterate(0, i -> i + 1)
                  .limit(20)
                  .map(i ->
                      store.read(
                          TestPages.key(1, i, 0, ROT4),
                          (page, offset, length) -> page.addressOffset() + offset)))
          .allMatch(address -> address != null && address % 64 == 0);
    }
  }
}
