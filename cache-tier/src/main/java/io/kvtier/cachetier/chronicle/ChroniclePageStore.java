package io.kvtier.cachetier.chronicle;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.ByteBudget;
import io.kvtier.cachetier.PageReader;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.Recovery;
import io.kvtier.page.PageKey;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.locks.ReentrantLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.ObjIntConsumer;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.stream.Stream;
import net.openhft.chronicle.hash.ChronicleHashRecoveryFailedException;
import org.agrona.DirectBuffer;
import org.jspecify.annotations.Nullable;

/**
 * Pages in memory-mapped files, one {@link PageMap} for each length of page, made when the first
 * page of that length comes. Each map alone can hold as many pages as the store's bound allows, and
 * the bound is kept by a budget over all of them; so any mix of lengths fits up to the bound and no
 * byte above it.
 *
 * <p>What survives: after {@link #close}, every page, also through a loss of power. After the death
 * of the process, every page whose put had returned and that was not deleted; of those in flight
 * any may be there, but only whole. After a loss of power without a close, whatever had reached the
 * disk; the rest is dropped. In the last two cases opening repairs the maps and verifies every page
 * ({@link #recovery}).
 *
 * <p>Files are sparse: a disk that others fill up refuses puts ({@code EXHAUSTED}) until it has
 * room again; what is stored stays readable.
 *
 * <p>Locks, in the order they are taken: the gate (shared by calls, exclusive to {@code close}),
 * the key's stripe (so that two puts of one key in different lengths cannot both succeed),
 * Chronicle's lock of the key's segment.
 */
public final class ChroniclePageStore implements PageStore {
  /**
   * Most different lengths of pages that a store holds at a time; a length is one geometry of model
   * and codec.
   */
  public static final int LENGTHS_MAX = 16;

  private static final Logger LOG = Logger.getLogger(ChroniclePageStore.class.getName());
  private static final int STRIPES = 256;
  private static final long DISK_BYTES_AFTER_FAULT = 32 << 20;

  /** Bytes of pages for each that is told to readers on this host: their index stays small. */
  private static final int INDEX_SHARE = 8 << 10;

  private final ReentrantReadWriteLock gate = new ReentrantReadWriteLock();
  private final ReentrantLock[] stripes = new ReentrantLock[STRIPES];
  private final ReentrantLock creation = new ReentrantLock();
  private final StoreDirectory directory;
  private final ByteBudget budget;
  private final long bytesLaidOut;
  private final Recovery recovery;

  /** Other than of any store before. */
  private final long instance = ThreadLocalRandom.current().nextLong(1, Long.MAX_VALUE);

  /** Replaced as a whole, under {@link #creation}. */
  private volatile PageMap[] maps = {};

  private volatile boolean closed;

  /** Whether a write has failed since there was room on the disk. */
  private volatile boolean diskFaulted;

  /** Whether a write has ever failed: the maps are to be recovered at the next start. */
  private volatile boolean toRecover;

  /**
   * Opens the pages of a directory, which is made if it does not exist.
   *
   * @param bytesMax bound of the sum of the pages' lengths; if more is stored already, it stays,
   *     and nothing is added
   * @throws KvtierException PRECONDITION if another store has the directory open; INVALID if it was
   *     laid out for fewer bytes; EXHAUSTED if the disk has less room than the bound; UNAVAILABLE
   *     if the files cannot be used
   */
  public static ChroniclePageStore open(Path directory, long bytesMax) {
    try {
      return open(StoreDirectory.lock(directory), bytesMax);
    } catch (IOException e) {
      throw unusable(directory, e);
    }
  }

  /** Opens an empty store in a fresh temporary directory, which {@link #close} removes. */
  public static ChroniclePageStore openTemporary(long bytesMax) {
    try {
      return open(StoreDirectory.temporary(), bytesMax);
    } catch (IOException e) {
      throw unusable(Path.of(System.getProperty("java.io.tmpdir", "")), e);
    }
  }

  private static KvtierException unusable(Path directory, IOException e) {
    return new KvtierException(
        Code.UNAVAILABLE, "data directory %s cannot be used: %s".formatted(directory, e), e);
  }

  private static ChroniclePageStore open(StoreDirectory directory, long bytesMax)
      throws IOException {
    try {
      ChronicleLogs.quieten();
      return new ChroniclePageStore(directory, bytesMax);
    } catch (IOException | RuntimeException e) {
      try {
        directory.close();
      } catch (IOException suppressed) {
        e.addSuppressed(suppressed);
      }
      throw e;
    }
  }

  private ChroniclePageStore(StoreDirectory directory, long bytesMax) throws IOException {
    this.directory = directory;
    this.budget = new ByteBudget(bytesMax);
    Arrays.setAll(stripes, i -> new ReentrantLock());
    directory.removeUnfinished();
    directory.endIndexes();
    this.bytesLaidOut = directory.layOut(bytesMax);
    boolean clean = directory.takeCleanMark();
    Recovery found = Recovery.NONE;
    RecoveryProgress progress = new RecoveryProgress();
    try {
      for (int length : directory.mapLengths()) {
        found = found.plus(clean ? adopt(length) : recover(length, progress));
      }
      if (maps.length == 0) {
        PageMap.warmUp(directory.unfinished("warm-up"));
      }
    } catch (IOException | RuntimeException e) {
      closeMaps();
      throw e;
    }
    this.recovery = found;
    tellWhatWasFound(clean, progress);
  }

  private void tellWhatWasFound(boolean clean, RecoveryProgress progress) {
    if (!clean && maps.length > 0) {
      LOG.log(
          recovery.pagesDropped() == 0 ? Level.INFO : Level.WARNING,
          "the last stop was not clean: of {0} bytes of pages verified, {1} pages are kept and {2}"
              + " torn ones removed",
          new Object[] {progress.bytes(), recovery.pagesKept(), recovery.pagesDropped()});
    }
  }

  private long entriesMax(int pageLength) {
    return Math.max(1, bytesLaidOut / pageLength);
  }

  private Recovery adopt(int length) throws IOException {
    keepUnlessEmpty(PageMap.open(directory.mapFile(length), length, entriesMax(length)));
    return Recovery.NONE;
  }

  /**
   * What cannot be repaired is removed: the tier is a cache, and one that does not start serves
   * nobody.
   */
  private Recovery recover(int length, RecoveryProgress progress) throws IOException {
    Path file = directory.mapFile(length);
    LOG.log(Level.INFO, "the last stop was not clean: repairing {0}", file);
    PageMap map;
    try {
      map = PageMap.recover(file, length, entriesMax(length));
    } catch (ChronicleHashRecoveryFailedException e) {
      LOG.log(
          Level.SEVERE, "pages of length " + length + " are lost: their file is beyond repair", e);
      Files.delete(file);
      return Recovery.NONE;
    }
    Recovery found = map.dropFlawed(progress);
    keepUnlessEmpty(map);
    return found;
  }

  /** An empty map's file may still use blocks for pages long deleted. */
  private void keepUnlessEmpty(PageMap map) throws IOException {
    long pages = map.size();
    if (pages == 0) {
      map.close();
      Files.delete(directory.mapFile(map.pageLength()));
    } else {
      budget.adopt(pages * map.pageLength());
      add(map);
    }
  }

  private void add(PageMap map) {
    publish(map);
    PageMap[] more = Arrays.copyOf(maps, maps.length + 1);
    more[maps.length] = map;
    maps = more;
  }

  /** Without an index the map's pages are read over the wire alone. */
  private void publish(PageMap map) {
    if (!MappedRanges.told()) {
      return;
    }
    int length = map.pageLength();
    try {
      PageIndex index =
          PageIndex.create(
              directory.unfinished("index-" + length),
              directory.indexFile(length),
              length,
              Math.min(entriesMax(length), bytesLaidOut / INDEX_SHARE),
              instance);
      map.publishTo(index, new MappedRanges(directory.mapFile(length)));
    } catch (IOException e) {
      LOG.log(Level.WARNING, "readers on this host cannot be told of pages of " + length, e);
    }
  }

  /** What opening found. */
  public Recovery recovery() {
    return recovery;
  }

  /** The run of this store, positive; told to readers of its files on this host. */
  public long instance() {
    return instance;
  }

  /** Where the files are. */
  public Path directory() {
    return directory.path();
  }

  @Override
  public PutResult put(PageKey key, DirectBuffer page, int offset, int length) {
    requireInRange("page length", length, 1, PAGE_BYTES_MAX);
    page.boundsCheck(offset, length);
    byte[] keyBytes = key.toBytes();
    ReentrantLock stripe = stripes[Arrays.hashCode(keyBytes) & STRIPES - 1];
    enter();
    try {
      stripe.lock();
      try {
        for (PageMap map : maps) {
          if (map.contains(keyBytes)) {
            return PutResult.EXISTED;
          }
        }
        insert(keyBytes, new PageData(page, offset, length), length);
        return PutResult.STORED;
      } finally {
        stripe.unlock();
      }
    } finally {
      gate.readLock().unlock();
    }
  }

  private void insert(byte[] key, PageData page, int length) {
    if (!budget.tryReserve(length)) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "tier is full: %d of %d bytes; a page of %d does not fit"
              .formatted(budget.used(), budget.max(), length));
    }
    boolean inserted = false;
    try {
      requireRoomOnDisk();
      mapFor(length).insert(key, page);
      inserted = true;
    } catch (InternalError e) {
      // How the virtual machine reports a mapped page that the disk has no block for.
      diskFaulted = true;
      toRecover = true;
      LOG.log(Level.SEVERE, "a page cannot be written to " + directory.path(), e);
      throw diskFull(e);
    } finally {
      if (!inserted) {
        budget.giveBack(length);
      }
    }
  }

  /**
   * After a write that the disk had no room for, nothing is tried before it has some: each failed
   * insertion costs a place in its map until the map is recovered.
   */
  private void requireRoomOnDisk() {
    if (!diskFaulted) {
      return;
    }
    if (directory.usableBytes() < DISK_BYTES_AFTER_FAULT) {
      throw diskFull(null);
    }
    diskFaulted = false;
  }

  private KvtierException diskFull(@Nullable Throwable cause) {
    String message =
        "disk of data directory %s is full or failing: %d bytes are free, pages are taken again from"
                .formatted(directory.path(), directory.usableBytes())
            + " %d on".formatted(DISK_BYTES_AFTER_FAULT);
    return cause == null
        ? new KvtierException(Code.EXHAUSTED, message)
        : new KvtierException(Code.EXHAUSTED, message, cause);
  }

  private PageMap mapFor(int length) {
    PageMap map = find(length);
    if (map != null) {
      return map;
    }
    creation.lock();
    try {
      map = find(length);
      if (map != null) {
        return map;
      }
      if (maps.length == LENGTHS_MAX) {
        throw new KvtierException(
            Code.EXHAUSTED,
            "tier has pages of %d different lengths, which is its bound; it takes none of length %d"
                .formatted(LENGTHS_MAX, length));
      }
      map =
          PageMap.create(
              directory.unfinished("pages-" + length),
              directory.mapFile(length),
              length,
              entriesMax(length));
      add(map);
      return map;
    } catch (IOException e) {
      throw unusable(directory.path(), e);
    } finally {
      creation.unlock();
    }
  }

  private @Nullable PageMap find(int length) {
    for (PageMap map : maps) {
      if (map.pageLength() == length) {
        return map;
      }
    }
    return null;
  }

  @Override
  public <R> @Nullable R read(PageKey key, PageReader<R> reader) {
    byte[] keyBytes = key.toBytes();
    enter();
    try {
      for (PageMap map : maps) {
        R result = map.read(keyBytes, reader);
        if (result != null) {
          return result;
        }
      }
      return null;
    } finally {
      gate.readLock().unlock();
    }
  }

  @Override
  public boolean contains(PageKey key) {
    byte[] keyBytes = key.toBytes();
    enter();
    try {
      return Stream.of(maps).anyMatch(map -> map.contains(keyBytes));
    } finally {
      gate.readLock().unlock();
    }
  }

  @Override
  public boolean delete(PageKey key) {
    return deleteIf(key, (page, offset, length) -> true);
  }

  @Override
  public boolean deleteIf(PageKey key, PageReader<Boolean> condition) {
    byte[] keyBytes = key.toBytes();
    enter();
    try {
      for (PageMap map : maps) {
        if (map.deleteIf(keyBytes, condition)) {
          budget.giveBack(map.pageLength());
          return true;
        }
      }
      return false;
    } finally {
      gate.readLock().unlock();
    }
  }

  @Override
  public void forEach(ObjIntConsumer<PageKey> visitor) {
    enter();
    try {
      for (PageMap map : maps) {
        map.forEach(key -> visitor.accept(key, map.pageLength()));
      }
    } finally {
      gate.readLock().unlock();
    }
  }

  /** Passes the gate; the caller releases it. */
  private void enter() {
    gate.readLock().lock();
    if (closed) {
      gate.readLock().unlock();
      throw new KvtierException(Code.UNAVAILABLE, "the page store is closed");
    }
  }

  /** 0 once closed. */
  @Override
  public long pages() {
    gate.readLock().lock();
    try {
      return closed ? 0 : Stream.of(maps).mapToLong(PageMap::size).sum();
    } finally {
      gate.readLock().unlock();
    }
  }

  @Override
  public long bytesUsed() {
    return budget.used();
  }

  @Override
  public long bytesMax() {
    return budget.max();
  }

  @Override
  public void close() {
    gate.writeLock().lock();
    try {
      if (closed) {
        return;
      }
      closed = true;
      try (directory) {
        closeMaps();
        if (!toRecover) {
          directory.leaveCleanMark();
        }
      } catch (IOException e) {
        throw new UncheckedIOException("data directory cannot be closed: " + directory.path(), e);
      }
    } finally {
      gate.writeLock().unlock();
    }
  }

  private void closeMaps() {
    for (PageMap map : maps) {
      map.close();
    }
  }
}
