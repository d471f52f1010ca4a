package io.kvtier.cachetier.chronicle;

import static java.nio.charset.StandardCharsets.UTF_8;
import static java.nio.file.StandardOpenOption.CREATE;
import static java.nio.file.StandardOpenOption.READ;
import static java.nio.file.StandardOpenOption.WRITE;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.mapped.PageIndexFlyweight;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.Files;
import java.nio.file.OpenOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * The files of one store, and who may use them.
 *
 * <pre>
 *   lock              locked by the process that has the store open; holds its process id
 *   layout            the bytes that the maps were laid out for, as decimal digits
 *   clean             there only while nobody has the store open, and the last who had closed it
 *   pages-LENGTH.map  pages of one length
 *   pages-LENGTH.index  where they lie in it, for readers on this host; made anew at each start
 * </pre>
 *
 * Not safe for use by many threads; the store that owns it sees to that.
 */
final class StoreDirectory implements AutoCloseable {
  private static final Pattern MAP_NAME = Pattern.compile("pages-([1-9][0-9]{0,8})\\.map");
  private static final String UNFINISHED = ".new";

  private final Path path;
  private final boolean temporary;
  private final FileChannel lockChannel;

  private StoreDirectory(Path path, boolean temporary, FileChannel lockChannel) {
    this.path = path;
    this.temporary = temporary;
    this.lockChannel = lockChannel;
  }

  /**
   * Makes the directory if need be and takes its lock.
   *
   * @throws KvtierException PRECONDITION if another store has it open
   */
  static StoreDirectory lock(Path path) throws IOException {
    Files.createDirectories(path);
    return lock(path, false);
  }

  /** A fresh directory that {@link #close} removes. */
  static StoreDirectory temporary() throws IOException {
    return lock(Files.createTempDirectory("kvtier-tier-"), true);
  }

  private static StoreDirectory lock(Path path, boolean temporary) throws IOException {
    Path file = path.resolve("lock");
    FileChannel channel = FileChannel.open(file, CREATE, READ, WRITE);
    if (!tryLock(channel)) {
      channel.close();
      throw new KvtierException(
          Code.PRECONDITION,
          "data directory %s is in use by process %s; stop that first, or give another directory"
              .formatted(path, Files.readString(file).strip()));
    }
    channel.truncate(0);
    channel.write(ByteBuffer.wrap((ProcessHandle.current().pid() + "\n").getBytes(UTF_8)));
    return new StoreDirectory(path, temporary, channel);
  }

  /** The lock lives as long as its channel. */
  private static boolean tryLock(FileChannel channel) throws IOException {
    try {
      FileLock lock = channel.tryLock();
      return lock != null;
    } catch (OverlappingFileLockException e) {
      return false;
    }
  }

  Path path() {
    return path;
  }

  /**
   * The bytes that the maps are, or from now on will be, laid out for.
   *
   * @throws KvtierException INVALID if there are maps that were laid out for fewer
   */
  long layOut(long bytesMax) throws IOException {
    Path layout = path.resolve("layout");
    if (Files.exists(layout) && !mapLengths().isEmpty()) {
      long laidOut = parse(layout);
      if (bytesMax > laidOut) {
        throw KvtierException.invalid(
            "tier bytes max is %d; data directory %s was laid out for at most %d: give at most"
                + " that, or an empty directory",
            bytesMax, path, laidOut);
      }
      return laidOut;
    }
    long usable = Files.getFileStore(path).getUsableSpace();
    if (usable < bytesMax) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "data directory %s has %d bytes free; tier bytes max is %d: lower it, or free some"
              .formatted(path, usable, bytesMax));
    }
    Path unfinished = unfinished("layout");
    Files.writeString(unfinished, bytesMax + "\n");
    Files.move(unfinished, layout, StandardCopyOption.ATOMIC_MOVE);
    return bytesMax;
  }

  private long parse(Path layout) throws IOException {
    String text = Files.readString(layout).strip();
    try {
      return Long.parseLong(text);
    } catch (NumberFormatException e) {
      throw new KvtierException(
          Code.PRECONDITION,
          "data directory %s has an unreadable layout file: '%s'; give another directory"
              .formatted(path, text),
          e);
    }
  }

  /** Bytes that the disk has free for this process. */
  long usableBytes() {
    return path.toFile().getUsableSpace();
  }

  /** Removes files that a crash left half made. */
  void removeUnfinished() throws IOException {
    for (Path file : files()) {
      if (file.getFileName().toString().endsWith(UNFINISHED)) {
        Files.delete(file);
      }
    }
  }

  /** The page lengths that there are map files for. */
  List<Integer> mapLengths() throws IOException {
    List<Integer> lengths = new ArrayList<>();
    for (Path file : files()) {
      Matcher matcher = MAP_NAME.matcher(file.getFileName().toString());
      if (matcher.matches()) {
        lengths.add(Integer.parseInt(matcher.group(1)));
      }
    }
    return lengths;
  }

  Path mapFile(int pageLength) {
    return path.resolve("pages-" + pageLength + PageIndexFlyweight.PAGES_SUFFIX);
  }

  Path indexFile(int pageLength) {
    return path.resolve("pages-" + pageLength + PageIndexFlyweight.SUFFIX);
  }

  /**
   * Ends what a former run has told readers on this host. Before any page is changed: they may
   * still read what it had.
   */
  void endIndexes() throws IOException {
    for (Path file : files()) {
      if (file.getFileName().toString().endsWith(PageIndexFlyweight.SUFFIX)) {
        PageIndex.end(file);
      }
    }
  }

  /** A file that the next start removes if it is still there. */
  Path unfinished(String name) {
    return path.resolve(name + UNFINISHED);
  }

  private List<Path> files() throws IOException {
    try (Stream<Path> files = Files.list(path)) {
      return files.filter(Files::isRegularFile).toList();
    }
  }

  /**
   * Whether the last stop was clean. From here on it counts as unclean, even if the machine loses
   * power.
   */
  boolean takeCleanMark() throws IOException {
    boolean clean = Files.deleteIfExists(path.resolve("clean"));
    if (clean) {
      force(path, READ);
    }
    return clean;
  }

  /** Makes all maps durable, then says so; they must be closed. */
  void leaveCleanMark() throws IOException {
    if (temporary) {
      return;
    }
    for (int length : mapLengths()) {
      force(mapFile(length), WRITE);
    }
    Files.writeString(path.resolve("clean"), "");
    force(path, READ);
  }

  private static void force(Path path, OpenOption mode) throws IOException {
    try (FileChannel channel = FileChannel.open(path, mode)) {
      channel.force(true);
    }
  }

  /** Releases the lock, and removes a temporary directory. */
  @Override
  public void close() throws IOException {
    if (temporary) {
      for (Path file : files()) {
        Files.delete(file);
      }
      Files.delete(path);
    }
    lockChannel.close();
  }
}
