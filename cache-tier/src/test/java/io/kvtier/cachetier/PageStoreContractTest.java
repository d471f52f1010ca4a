package io.kvtier.cachetier;

import static io.kvtier.cachetier.TestPages.bytes;
import static io.kvtier.cachetier.TestPages.key;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * What every page store does. Contents follow from the key's index, so that every byte read can be
 * checked.
 */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
public abstract class PageStoreContractTest {
  private static final int MIB = 1 << 20;

  @TempDir protected Path directory;

  /**
   * Opens a store; one that keeps its pages in files keeps them in the directory, which is empty.
   */
  protected abstract PageStore open(Path directory, long bytesMax);

  protected static PutResult put(PageStore store, int index, int length) {
    return store.put(key(index), new UnsafeBuffer(bytes(index, length)), 0, length);
  }

  protected static byte @Nullable [] get(PageStore store, PageKey key) {
    return store.read(
        key,
        (page, offset, length) -> {
          byte[] copy = new byte[length];
          page.getBytes(offset, copy);
          return copy;
        });
  }

  protected static void assertFull(PageStore store, int index, int length) {
    long pages = store.pages();
    long used = store.bytesUsed();
    assertThatThrownBy(() -> put(store, index, length))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
        .hasMessageStartingWith("tier is full: %d of %d bytes; ", used, store.bytesMax());
    assertThat(store.pages()).isEqualTo(pages);
    assertThat(store.bytesUsed()).isEqualTo(used);
    assertThat(store.contains(key(index))).isFalse();
  }

  @Test
  void aStoredPageReadsBackAndCounts() {
    try (PageStore store = open(directory, MIB)) {
      assertThat(get(store, key(1))).isNull();
      assertThat(store.contains(key(1))).isFalse();
      assertThat(put(store, 1, 4096)).isEqualTo(PutResult.STORED);
      assertThat(get(store, key(1))).isEqualTo(bytes(1, 4096));
      assertThat(store.contains(key(1))).isTrue();
      assertThat(store.contains(key(2))).isFalse();
      assertThat(store.pages()).isEqualTo(1);
      assertThat(store.bytesUsed()).isEqualTo(4096);
      assertThat(store.bytesMax()).isEqualTo(MIB);
    }
  }

  @Test
  void pagesComeFromAnyOffsetOfBuffersOnHeapAndOff() {
    byte[] content = bytes(7, 1000);
    UnsafeBuffer heap = new UnsafeBuffer(new byte[1300], 100, 1200);
    UnsafeBuffer direct = new UnsafeBuffer(ByteBuffer.allocateDirect(1200));
    UnsafeBuffer readOnly;
    heap.putBytes(33, content);
    direct.putBytes(33, content);
    byte[] shifted = new byte[1200];
    System.arraycopy(content, 0, shifted, 33, 1000);
    readOnly = new UnsafeBuffer(ByteBuffer.wrap(shifted).asReadOnlyBuffer());
    try (PageStore store = open(directory, MIB)) {
      int index = 0;
      for (DirectBuffer buffer : List.of(heap, direct, readOnly)) {
        assertThat(store.put(key(index), buffer, 33, 1000)).isEqualTo(PutResult.STORED);
        assertThat(get(store, key(index++))).isEqualTo(content);
      }
      assertThatThrownBy(() -> store.put(key(9), heap, 201, 1000))
          .isInstanceOf(IndexOutOfBoundsException.class);
      assertThat(store.pages()).isEqualTo(3);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, -1, PageStore.PAGE_BYTES_MAX + 1})
  void aLengthOutOfItsBoundsIsRefused(int length) {
    try (PageStore store = open(directory, MIB)) {
      UnsafeBuffer page = new UnsafeBuffer(new byte[PageStore.PAGE_BYTES_MAX + 1]);
      assertThatThrownBy(() -> store.put(key(1), page, 0, length))
          .isInstanceOf(KvtierException.class)
          .hasMessage("page length is %d; it must be 1..16777216", length);
      assertThat(store.pages()).isZero();
      assertThat(store.bytesUsed()).isZero();
    }
  }

  @Test
  void aPageIsNeverOverwritten() {
    try (PageStore store = open(directory, 8192)) {
      put(store, 1, 4096);
      byte[] other = bytes(2, 4096);
      byte[] longer = bytes(3, 4160);
      assertThat(store.put(key(1), new UnsafeBuffer(other), 0, 4096)).isEqualTo(PutResult.EXISTED);
      assertThat(store.put(key(1), new UnsafeBuffer(longer), 0, 4160)).isEqualTo(PutResult.EXISTED);
      put(store, 4, 4096);
      assertThat(store.put(key(1), new UnsafeBuffer(other), 0, 4096))
          .as("also when the store is full")
          .isEqualTo(PutResult.EXISTED);
      assertThat(get(store, key(1))).isEqualTo(bytes(1, 4096));
      assertThat(store.pages()).isEqualTo(2);
      assertThat(store.bytesUsed()).isEqualTo(8192);
    }
  }

  @Test
  void aDeletedPageIsGoneAndItsKeyFree() {
    try (PageStore store = open(directory, MIB)) {
      assertThat(store.delete(key(1))).isFalse();
      put(store, 1, 4096);
      assertThat(store.delete(key(1))).isTrue();
      assertThat(store.delete(key(1))).isFalse();
      assertThat(get(store, key(1))).isNull();
      assertThat(store.pages()).isZero();
      assertThat(store.bytesUsed()).isZero();
      assertThat(store.put(key(1), new UnsafeBuffer(bytes(5, 640)), 0, 640))
          .isEqualTo(PutResult.STORED);
      assertThat(get(store, key(1))).isEqualTo(bytes(5, 640));
    }
  }

  @Test
  void deleteIfJudgesThePageThatIsThere() {
    try (PageStore store = open(directory, MIB)) {
      put(store, 1, 640);
      byte first = bytes(1, 640)[0];
      assertThat(store.deleteIf(key(1), (page, at, length) -> page.getByte(at) != first)).isFalse();
      assertThat(store.pages()).isEqualTo(1);
      assertThat(store.deleteIf(key(1), (page, at, length) -> page.getByte(at) == first)).isTrue();
      assertThat(store.deleteIf(key(1), (page, at, length) -> true)).isFalse();
      assertThat(store.pages()).isZero();
      assertThat(store.bytesUsed()).isZero();
    }
  }

  @Test
  void aReaderThatFailsReleasesThePage() {
    try (PageStore store = open(directory, MIB)) {
      put(store, 1, 640);
      IllegalStateException failure = new IllegalStateException("planted");
      assertThatThrownBy(() ->
              store.read(
                  key(1),
                  (page, at, length) -> {
                    throw failure;
                  }))
          .isSameAs(failure);
      assertThat(store.delete(key(1))).isTrue();
    }
  }

  @Test
  void aReadersBufferEndsWithTheRead() {
    try (PageStore store = open(directory, MIB)) {
      put(store, 1, 640);
      DirectBuffer kept = store.read(key(1), (page, at, length) -> page);
      assertThat(kept).isNotNull().extracting(DirectBuffer::capacity).isEqualTo(0);
    }
  }

  @ParameterizedTest
  @CsvSource({"640, 8", "832, 3", "4096, 8", "70016, 8", "1048576, 8", "8388608, 32"})
  void everyByteUpToTheBoundCanBeUsedAndNoneAbove(int length, int mib) {
    long bytesMax = (long) mib * MIB / length * length;
    int fits = (int) (bytesMax / length);
    try (PageStore store = open(directory, bytesMax)) {
      for (int i = 0; i < fits; i++) {
        assertThat(put(store, i, length)).isEqualTo(PutResult.STORED);
      }
      assertThat(store.bytesUsed()).isEqualTo(bytesMax);
      assertFull(store, fits, length);
      assertFull(store, fits, 1);
      assertThat(store.delete(key(fits / 2))).isTrue();
      assertFull(store, fits, length + 1);
      assertThat(put(store, fits, length)).isEqualTo(PutResult.STORED);
      for (int i = 0; i <= fits; i++) {
        assertThat(get(store, key(i))).isEqualTo(i == fits / 2 ? null : bytes(i, length));
      }
    }
  }

  @Test
  void anyMixOfLengthsFitsUpToTheBound() {
    long seed = System.nanoTime();
    System.out.println("anyMixOfLengthsFitsUpToTheBound seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    int[] lengths = {640, 704, 4096, 4160, 20480, 65536, 70016};
    Map<Integer, Integer> model = new HashMap<>();
    List<Integer> stored = new ArrayList<>();
    long used = 0;
    int refused = 0;
    try (PageStore store = open(directory, 4 * MIB)) {
      for (int index = 0; index < 20_000; index++) {
        if (!stored.isEmpty() && random.nextInt(10) < 4) {
          int at = random.nextInt(stored.size());
          int victim = stored.set(at, stored.getLast());
          stored.removeLast();
          used -= model.getOrDefault(victim, 0);
          model.remove(victim);
          assertThat(store.delete(key(victim))).isTrue();
        }
        int length = lengths[random.nextInt(lengths.length)];
        if (used + length > store.bytesMax()) {
          assertFull(store, index, length);
          refused++;
        } else {
          assertThat(put(store, index, length)).isEqualTo(PutResult.STORED);
          model.put(index, length);
          stored.add(index);
          used += length;
        }
      }
      assertThat(refused).isPositive();
      assertThat(store.bytesUsed()).isEqualTo(used);
      assertThat(store.pages()).isEqualTo(model.size());
      model.forEach((i, length) -> assertThat(get(store, key(i))).isEqualTo(bytes(i, length)));
    }
  }

  @Test
  void manyThreadsReadOnlyWholePages() throws Exception {
    int threads = 6;
    int keys = 64;
    long seed = System.nanoTime();
    System.out.println("manyThreadsReadOnlyWholePages seed " + seed);
    try (PageStore store = open(directory, 2 * MIB);
        ExecutorService pool = Executors.newFixedThreadPool(threads)) {
      List<Future<Integer>> all = new ArrayList<>();
      for (int t = 0; t < threads; t++) {
        SplittableRandom random = new SplittableRandom(seed + t);
        all.add(pool.submit(() -> putReadAndDelete(store, random, keys)));
      }
      int balance = 0;
      for (Future<Integer> one : all) {
        balance += one.get();
      }
      int there = 0;
      long used = 0;
      for (int index = 0; index < keys; index++) {
        byte[] page = get(store, key(index));
        if (page != null) {
          there++;
          used += page.length;
        }
      }
      assertThat(there).isEqualTo(balance);
      assertThat(store.pages()).isEqualTo(there);
      assertThat(store.bytesUsed()).isEqualTo(used);
    }
  }

  /** Pages of one key have one of two lengths; returns pages stored less pages deleted. */
  private static int putReadAndDelete(PageStore store, SplittableRandom random, int keys) {
    int balance = 0;
    for (int i = 0; i < 6_000; i++) {
      int index = random.nextInt(keys);
      int length = 16_384 + 64 * random.nextInt(2);
      switch (random.nextInt(4)) {
        case 0 -> balance += put(store, index, length) == PutResult.STORED ? 1 : 0;
        case 1 -> balance -= store.delete(key(index)) ? 1 : 0;
        default -> {
          byte[] page = get(store, key(index));
          assertThat(page == null || Arrays.equals(page, bytes(index, page.length))).isTrue();
        }
      }
    }
    return balance;
  }

  @Test
  void closeIsIdempotentAndEndsService() {
    PageStore store = open(directory, MIB);
    put(store, 1, 640);
    store.close();
    store.close();
    assertThatThrownBy(() -> put(store, 2, 640)).hasMessage("the page store is closed");
    assertThatThrownBy(() -> get(store, key(1))).hasMessage("the page store is closed");
    assertThatThrownBy(() -> store.contains(key(1))).hasMessage("the page store is closed");
    assertThatThrownBy(() -> store.delete(key(1))).hasMessage("the page store is closed");
    assertThat(store.pages()).isZero();
  }

  @Test
  void everyPageIsShownWithItsLength() {
    try (PageStore store = open(directory, MIB)) {
      Map<PageKey, Integer> expected = new HashMap<>();
      for (int i = 0; i < 50; i++) {
        put(store, i, 640 + 64 * (i % 3));
        expected.put(key(i), 640 + 64 * (i % 3));
      }
      store.delete(key(7));
      expected.remove(key(7));
      Map<PageKey, Integer> shown = new HashMap<>();
      store.forEach((key, length) -> assertThat(shown.put(key, length)).isNull());
      assertThat(shown).isEqualTo(expected);
    }
  }
}
