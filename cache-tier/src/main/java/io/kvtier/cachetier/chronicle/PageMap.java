package io.kvtier.cachetier.chronicle;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.PageReader;
import io.kvtier.cachetier.Recovery;
import io.kvtier.page.PageKey;
import io.kvtier.page.Pages;
import io.kvtier.page.Pages.Flaw;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.Consumer;
import net.openhft.chronicle.hash.Data;
import net.openhft.chronicle.map.ChronicleMap;
import net.openhft.chronicle.map.ChronicleMapBuilder;
import net.openhft.chronicle.map.ExternalMapQueryContext;
import net.openhft.chronicle.map.MapEntry;
import net.openhft.chronicle.map.MapSegmentContext;
import org.agrona.BitUtil;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/**
 * Pages of one length in one Chronicle Map in one file. Every entry is one chunk of just its size,
 * so nothing is wasted inside an entry and nothing fragments. The file is sparse: blocks are used
 * as pages are first written, and never given back.
 *
 * <p>Chronicle's own sizing from the average entry doubles the chunks of a sparse file, and spreads
 * the pages over the doubled file, so the whole geometry is given instead: about {@link
 * #ENTRIES_PER_SEGMENT} entries a segment, and room for {@link #DEVIATIONS} standard deviations
 * more since keys spread unevenly. A segment that is full nevertheless gets further tiers, which
 * lengthen the file. All entries in one segment would need at most as many of them as there are
 * segments; the bloat factor allows that, so {@code entriesMax} entries fit whatever their keys.
 */
final class PageMap implements AutoCloseable {
  private static final int ENTRIES_PER_SEGMENT = 1024;

  /**
   * Each segment's index is zeroed at creation; in a sparse file every such place costs a
   * read-ahead window, 20 ms where that is 8 MiB.
   */
  private static final int SEGMENTS_MAX = 32;

  private static final int DEVIATIONS = 5;
  private static final int ALIGNMENT = 64;
  private static final double BLOAT_FACTOR_MAX = 3;

  private final ChronicleMap<byte[], byte[]> map;
  private final int pageLength;

  /** Where readers on this host are told of the pages. */
  private record Publication(PageIndex index, MappedRanges ranges) {}

  private volatile @Nullable Publication published;

  private PageMap(ChronicleMap<byte[], byte[]> map, int pageLength) {
    this.map = map;
    this.pageLength = pageLength;
  }

  /** Makes the file under another name first, so that a file of this name is always complete. */
  static PageMap create(Path unfinished, Path file, int pageLength, long entriesMax)
      throws IOException {
    // A disk that was full the last time may have left half a file, which Chronicle would wait for.
    Files.deleteIfExists(unfinished);
    builder(pageLength, entriesMax).createPersistedTo(unfinished.toFile()).close();
    Files.move(unfinished, file, StandardCopyOption.ATOMIC_MOVE);
    return open(file, pageLength, entriesMax);
  }

  /** Opens a file whose last user closed it. */
  static PageMap open(Path file, int pageLength, long entriesMax) throws IOException {
    return new PageMap(
        builder(pageLength, entriesMax).createPersistedTo(file.toFile()), pageLength);
  }

  /**
   * Opens a file whose last user may have died with locks held and entries half written: repairs
   * Chronicle's structures, but vouches for no page; {@link #dropFlawed} must follow.
   */
  static PageMap recover(Path file, int pageLength, long entriesMax) throws IOException {
    return new PageMap(
        builder(pageLength, entriesMax).recoverPersistedTo(file.toFile(), true, corruption -> {}),
        pageLength);
  }

  /**
   * Has Chronicle generate and load its classes, which takes seconds, before the first page comes.
   */
  static void warmUp(Path unfinished) throws IOException {
    try (PageMap pages =
        new PageMap(builder(ALIGNMENT, 1).createPersistedTo(unfinished.toFile()), ALIGNMENT)) {
      byte[] key = new byte[PageKey.LENGTH];
      UnsafeBuffer page = new UnsafeBuffer(new byte[ALIGNMENT]);
      pages.insert(key, new PageData(page, 0, ALIGNMENT));
      pages.read(key, (buffer, offset, length) -> length);
      pages.deleteIf(key, (buffer, offset, length) -> true);
    }
    Files.delete(unfinished);
  }

  /**
   * Pages carry their own checksums, so entries need none. The process closes maps itself, in
   * order; Chronicle's exit hook would pull them from under calls under way.
   */
  private static ChronicleMapBuilder<byte[], byte[]> builder(int pageLength, long entriesMax) {
    int segments =
        BitUtil.findNextPositivePowerOfTwo(
            Math.clamp(entriesMax / ENTRIES_PER_SEGMENT, 1, SEGMENTS_MAX));
    double mean = (double) entriesMax / segments;
    long entriesPerSegment =
        segments == 1 ? entriesMax : (long) Math.ceil(mean + DEVIATIONS * Math.sqrt(mean));
    return ChronicleMapBuilder.of(byte[].class, byte[].class)
        .name("pages-" + pageLength)
        .entries(entriesMax)
        .actualSegments(segments)
        .entriesPerSegment(entriesPerSegment)
        .actualChunksPerSegmentTier(entriesPerSegment)
        .actualChunkSize(chunkSize(pageLength))
        .maxBloatFactor(BLOAT_FACTOR_MAX)
        .constantKeySizeBySample(new byte[PageKey.LENGTH])
        .constantValueSizeBySample(new byte[pageLength])
        .entryAndValueOffsetAlignment(ALIGNMENT)
        .checksumEntries(false)
        .sparseFile(true)
        .skipCloseOnExitHook(true);
  }

  /**
   * Bytes of an entry: the key, the page, and as much again as aligning the page by its address can
   * take. Chronicle does not check that an entry of constant size fits its chunk: one byte less
   * than the entry takes is a write into its neighbour, or past the map's end.
   */
  private static int chunkSize(int pageLength) {
    return BitUtil.align(PageKey.LENGTH, ALIGNMENT)
        + BitUtil.align(pageLength, ALIGNMENT)
        + ALIGNMENT;
  }

  int pageLength() {
    return pageLength;
  }

  long size() {
    return map.longSize();
  }

  int segmentOf(byte[] key) {
    try (ExternalMapQueryContext<byte[], byte[], ?> context = map.queryContext(key)) {
      return context.segmentIndex();
    }
  }

  boolean contains(byte[] key) {
    try (ExternalMapQueryContext<byte[], byte[], ?> context = map.queryContext(key)) {
      context.readLock().lock();
      return context.entry() != null;
    }
  }

  /** Reads in place under the read lock of the key's segment; null if there is no such page. */
  <R> @Nullable R read(byte[] key, PageReader<R> reader) {
    try (ExternalMapQueryContext<byte[], byte[], ?> context = map.queryContext(key)) {
      context.readLock().lock();
      MapEntry<byte[], byte[]> entry = context.entry();
      return entry == null ? null : look(entry, reader);
    }
  }

  /** Inserts a page under a key that must be absent. */
  void insert(byte[] key, PageData page) {
    try (ExternalMapQueryContext<byte[], byte[], ?> context = map.queryContext(key)) {
      context.updateLock().lock();
      var absent = context.absentEntry();
      if (absent == null) {
        throw new IllegalStateException("inserted twice: a page of length " + pageLength);
      }
      context.insert(absent, page);
      MapEntry<byte[], byte[]> entry = context.entry();
      if (entry != null) {
        publish(key, entry);
      }
    }
  }

  /**
   * Has all pages, and those to come, told to readers on this host, until {@link #close}. Before
   * anybody else knows this map.
   */
  void publishTo(PageIndex index, MappedRanges ranges) {
    published = new Publication(index, ranges);
    for (int segment = 0; segment < map.segments(); segment++) {
      try (MapSegmentContext<byte[], byte[], ?> context = map.segmentContext(segment)) {
        context.forEachSegmentEntry(entry -> publish(entry.key().get(), entry));
      }
    }
  }

  private void publish(byte[] key, MapEntry<byte[], byte[]> entry) {
    Publication to = published;
    if (to != null) {
      Data<byte[]> value = entry.value();
      long offset = to.ranges().offsetOf(value.bytes().addressForRead(value.offset()));
      if (offset > 0) {
        to.index().add(keyOf(key), offset);
      }
    }
  }

  private static PageKey keyOf(byte[] key) {
    return PageKey.of(UnsafeByteOperations.unsafeWrap(key));
  }

  /**
   * Removes a page if the condition holds; the segment's update lock keeps it as it is meanwhile.
   */
  boolean deleteIf(byte[] key, PageReader<Boolean> condition) {
    try (ExternalMapQueryContext<byte[], byte[], ?> context = map.queryContext(key)) {
      context.updateLock().lock();
      MapEntry<byte[], byte[]> entry = context.entry();
      if (entry == null || !look(entry, condition)) {
        return false;
      }
      Publication from = published;
      if (from != null) {
        // First: its bytes may be another page's as soon as it is removed.
        from.index().remove(keyOf(key));
      }
      context.remove(entry);
      return true;
    }
  }

  /** Shows every key, segment by segment, under the segment's lock. */
  void forEach(Consumer<PageKey> visitor) {
    for (int segment = 0; segment < map.segments(); segment++) {
      try (MapSegmentContext<byte[], byte[], ?> context = map.segmentContext(segment)) {
        context.forEachSegmentEntry(
            entry -> visitor.accept(PageKey.of(ByteString.copyFrom(entry.key().get()))));
      }
    }
  }

  /** Verifies every page and removes those that are flawed, on as many threads as may help. */
  Recovery dropFlawed(RecoveryProgress progress) {
    int threads = Math.min(map.segments(), Runtime.getRuntime().availableProcessors());
    try (ExecutorService pool =
        Executors.newFixedThreadPool(
            threads, Thread.ofPlatform().name("kvtier-recovery-", 0).daemon().factory())) {
      List<Future<Recovery>> parts = new ArrayList<>();
      for (int segment = 0; segment < map.segments(); segment++) {
        int part = segment;
        parts.add(pool.submit(() -> dropFlawed(part, progress)));
      }
      Recovery all = Recovery.NONE;
      for (Future<Recovery> part : parts) {
        all = all.plus(part.get());
      }
      return all;
    } catch (ExecutionException e) {
      throw new IllegalStateException("pages of length " + pageLength + " not verified", e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while verifying pages", e);
    }
  }

  private Recovery dropFlawed(int segment, RecoveryProgress progress) {
    long[] keptAndDropped = new long[2];
    try (MapSegmentContext<byte[], byte[], ?> context = map.segmentContext(segment)) {
      context.forEachSegmentEntry(entry -> {
        if (sound(entry)) {
          keptAndDropped[0]++;
        } else {
          keptAndDropped[1]++;
          entry.doRemove();
        }
        progress.verified(pageLength);
      });
    }
    return new Recovery(keptAndDropped[0], keptAndDropped[1]);
  }

  private boolean sound(MapEntry<byte[], byte[]> entry) {
    PageKey key;
    try {
      key = PageKey.of(ByteString.copyFrom(entry.key().get()));
    } catch (KvtierException e) {
      return false;
    }
    return look(
        entry, (page, offset, length) -> Pages.verify(key, page, offset, length) == Flaw.NONE);
  }

  /**
   * The window is closed after the call, so that a reader that kept it fails instead of reading
   * what is there by then.
   */
  private <R> R look(MapEntry<byte[], byte[]> entry, PageReader<R> reader) {
    Data<byte[]> value = entry.value();
    UnsafeBuffer window =
        new UnsafeBuffer(value.bytes().addressForRead(value.offset()), pageLength);
    try {
      return reader.read(window, 0, pageLength);
    } finally {
      window.wrap(0, 0);
    }
  }

  @Override
  public void close() {
    Publication to = published;
    if (to != null) {
      to.index().retire();
    }
    map.close();
  }
}
