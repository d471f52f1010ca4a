package io.kvtier.mapped;

import io.kvtier.page.PageKey;
import io.kvtier.page.Prefetch;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;
import java.lang.ref.Reference;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.stream.Stream;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * The pages of one run of a tier on this host, in the files that it has mapped ({@link
 * PageIndexFlyweight}). Read only, and without locks. Safe for any number of threads. The files are
 * unmapped once this object and every call on it are gone.
 */
public final class MappedPages {
  private static final Logger LOG = Logger.getLogger(MappedPages.class.getName());

  /** Files of further lengths of pages are looked for so often at most, and less and less often. */
  private static final long LOOK_NS_MIN = TimeUnit.MILLISECONDS.toNanos(1);

  private static final long LOOK_NS_MAX = TimeUnit.SECONDS.toNanos(1);

  private final Path directory;
  private final long instance;
  private final Set<Path> seen = new HashSet<>();
  private volatile PageFile[] files = {};
  private volatile long lookedNs;
  private volatile long pauseNs;

  private MappedPages(Path directory, long instance) {
    this.directory = directory;
    this.instance = instance;
  }

  /** Looks at a page where it lies. */
  @FunctionalInterface
  public interface Reader {
    /**
     * Called while the page may be taken away: what is read may be of another page, or of none, and
     * counts only if the call that it is made by says so. So nothing read may be relied on twice.
     *
     * @param page the page alone, from 0 on; not to be kept
     * @return whether it is what was wanted
     */
    boolean read(DirectBuffer page, int length);
  }

  /**
   * Maps what there is.
   *
   * @param directory of the tier's files
   * @param instance the run of the tier that is meant
   * @return empty if they are not of this run, or cannot be read from here
   */
  public static Optional<MappedPages> open(Path directory, long instance) {
    MappedPages pages = new MappedPages(directory, instance);
    if (!Files.isReadable(directory)) {
      return Optional.empty();
    }
    // A tier without pages has no files yet; another run's files are never those of this one.
    return Optional.of(pages);
  }

  /** Whether the tier's run has ended, so that nothing will be found any more. */
  public boolean ended() {
    for (PageFile file : files) {
      if (file.ended()) {
        return true;
      }
    }
    return false;
  }

  /**
   * Lets the reader look at a page.
   *
   * @return true: the page was there all the time and is what the reader wanted; false: it is not
   *     to be read here, whatever the reader saw
   */
  public boolean read(PageKey key, Reader reader) {
    do {
      for (PageFile file : files) {
        int slot = file.find(key);
        if (slot >= 0) {
          return file.read(key, slot, reader);
        }
      }
    } while (System.nanoTime() - lookedNs >= pauseNs && look());
    return false;
  }

  /** Asks memory for what {@link #placeOf} looks at, ahead of it. */
  public void askForPlace(PageKey key) {
    for (PageFile file : files) {
      file.askForSlot(key);
    }
  }

  /**
   * Where a page seems to begin in this process's memory, for that to be asked ahead of {@link
   * #read}; 0: nowhere. It may be another's the next moment.
   */
  public long placeOf(PageKey key) {
    for (PageFile file : files) {
      int slot = file.find(key);
      if (slot >= 0) {
        return file.placeOf(slot);
      }
    }
    return 0;
  }

  /** Whether a page is to be found here now. */
  public boolean has(PageKey key) {
    for (PageFile file : files) {
      if (file.find(key) >= 0) {
        return true;
      }
    }
    return false;
  }

  /** Maps what has come since the last look; false: nothing has. */
  private synchronized boolean look() {
    List<PageFile> all = new ArrayList<>(List.of(files));
    int before = all.size();
    try (Stream<Path> there = Files.list(directory)) {
      for (Path path : there.toList()) {
        if (path.toString().endsWith(PageIndexFlyweight.SUFFIX) && !seen.contains(path)) {
          PageFile file = PageFile.map(path);
          if (PageIndexFlyweight.instance(file.index) == instance) {
            seen.add(path);
            all.add(file);
          }
        }
      }
    } catch (IOException e) {
      LOG.log(Level.FINE, "files of a tier on this host cannot be read: " + directory, e);
    }
    boolean more = all.size() > before;
    if (more) {
      files = all.toArray(PageFile[]::new);
    }
    lookedNs = System.nanoTime();
    pauseNs = more ? LOOK_NS_MIN : Math.clamp(2 * pauseNs, LOOK_NS_MIN, LOOK_NS_MAX);
    return more;
  }

  /** Pages of one length. */
  private static final class PageFile {
    final UnsafeBuffer index;
    private final MemorySegment pages;
    private final int slots;
    private final int pageLength;
    private final long instance;

    private PageFile(UnsafeBuffer index, MemorySegment pages) {
      this.index = index;
      this.pages = pages;
      this.slots = PageIndexFlyweight.slots(index);
      this.pageLength = PageIndexFlyweight.pageLength(index);
      this.instance = PageIndexFlyweight.instance(index);
    }

    static PageFile map(Path indexPath) throws IOException {
      String path = indexPath.toString();
      String stem = path.substring(0, path.length() - PageIndexFlyweight.SUFFIX.length());
      try (FileChannel index = FileChannel.open(indexPath, StandardOpenOption.READ);
          FileChannel pages =
              FileChannel.open(
                  Path.of(stem + PageIndexFlyweight.PAGES_SUFFIX), StandardOpenOption.READ)) {
        long indexBytes = index.size();
        if (indexBytes > PageIndexFlyweight.length(PageIndexFlyweight.SLOTS_MAX)) {
          throw new IOException("index %s has %d bytes".formatted(path, indexBytes));
        }
        UnsafeBuffer buffer = new UnsafeBuffer(index.map(MapMode.READ_ONLY, 0, indexBytes));
        if (!PageIndexFlyweight.isIndex(buffer)) {
          throw new IOException(path + " is no index of pages");
        }
        return new PageFile(buffer, pages.map(MapMode.READ_ONLY, 0, pages.size(), Arena.ofAuto()));
      }
    }

    boolean ended() {
      return PageIndexFlyweight.instance(index) != instance || instance == 0;
    }

    /** The slot that has the key, or -1; it may be another's the next moment. */
    int find(PageKey key) {
      for (int place = 0; place < PageIndexFlyweight.WINDOW; place++) {
        int slot = PageIndexFlyweight.slot(key, place, slots);
        if (PageIndexFlyweight.hasKey(index, slot, key)
            && PageIndexFlyweight.offset(index, slot) != 0) {
          return slot;
        }
      }
      return -1;
    }

    void askForSlot(PageKey key) {
      int slot = PageIndexFlyweight.slot(key, 0, slots);
      Prefetch.lines(index.addressOffset() + slot, PageIndexFlyweight.SLOT_BYTES);
    }

    long placeOf(int slot) {
      return pages.address() + PageIndexFlyweight.offset(index, slot);
    }

    boolean read(PageKey key, int slot, Reader reader) {
      long version = PageIndexFlyweight.version(index, slot);
      long offset = PageIndexFlyweight.offset(index, slot);
      boolean its = PageIndexFlyweight.hasKey(index, slot, key);
      if ((version & 1) != 0
          || !its
          || !unchanged(slot, version)
          || offset <= 0
          || offset > pages.byteSize() - pageLength) {
        return false;
      }
      UnsafeBuffer window = new UnsafeBuffer(pages.address() + offset, pageLength);
      try {
        return reader.read(window, pageLength) && unchanged(slot, version);
      } catch (InternalError e) {
        // How the virtual machine reports memory of a file that the system cannot bring.
        LOG.log(Level.WARNING, "a tier's file on this host cannot be read", e);
        return false;
      } finally {
        window.wrap(0, 0);
        Reference.reachabilityFence(this);
      }
    }

    /** Whether all that was read since the version was is of that version. */
    private boolean unchanged(int slot, long version) {
      VarHandle.acquireFence();
      return PageIndexFlyweight.version(index, slot) == version && !ended();
    }
  }
}
