package io.kvtier.cachetier.chronicle;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Where this process has a file mapped, as the system tells: from an address to the offset in the
 * file. Chronicle maps what a file grows by on its own, so the ranges are asked for anew at an
 * address that none has. Safe for any number of threads.
 */
final class MappedRanges {
  private static final Path MAPS = Path.of("/proc/self/maps");

  /** Addresses, permissions, offset, device, inode, path. */
  private static final Pattern LINE =
      Pattern.compile("([0-9a-f]+)-([0-9a-f]+) \\S+ ([0-9a-f]+) \\S+ ([0-9]+) +(\\S.*)");

  private record Range(long from, long to, long offset) {}

  private final Path file;
  private final String inode;
  private volatile Range[] ranges = {};

  MappedRanges(Path file) throws IOException {
    this.file = file;
    this.inode = Files.getAttribute(file, "unix:ino").toString();
  }

  /** Whether this system tells what a process has mapped. */
  static boolean told() {
    return Files.isReadable(MAPS);
  }

  /** The offset in the file of what lies at an address; -1: it is not of this file. */
  long offsetOf(long address) {
    long offset = find(address);
    if (offset < 0) {
      ranges = read();
      offset = find(address);
    }
    return offset;
  }

  private long find(long address) {
    for (Range range : ranges) {
      if (address >= range.from() && address < range.to()) {
        return address - range.from() + range.offset();
      }
    }
    return -1;
  }

  private Range[] read() {
    List<Range> found = new ArrayList<>();
    try {
      for (String line : Files.readAllLines(MAPS)) {
        Matcher matcher = LINE.matcher(line);
        if (matcher.matches()
            && matcher.group(4).equals(inode)
            && matcher.group(5).endsWith(String.valueOf(file.getFileName()))) {
          found.add(
              new Range(
                  Long.parseUnsignedLong(matcher.group(1), 16),
                  Long.parseUnsignedLong(matcher.group(2), 16),
                  Long.parseUnsignedLong(matcher.group(3), 16)));
        }
      }
    } catch (IOException e) {
      // Then nobody is told where the page lies, and it is read over the wire.
      return ranges;
    }
    return found.toArray(Range[]::new);
  }
}
