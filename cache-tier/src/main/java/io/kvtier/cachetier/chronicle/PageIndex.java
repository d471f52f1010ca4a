package io.kvtier.cachetier.chronicle;

import static java.nio.file.StandardOpenOption.CREATE_NEW;
import static java.nio.file.StandardOpenOption.READ;
import static java.nio.file.StandardOpenOption.WRITE;

import io.kvtier.mapped.PageIndexFlyweight;
import io.kvtier.page.PageKey;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Tells other processes on this host where the pages of one map lie ({@link PageIndexFlyweight}).
 * Safe for any number of threads; readers never wait, nor are they waited for.
 */
final class PageIndex {
  private static final int ZEROS = 1 << 20;

  private final UnsafeBuffer index;
  private final int slots;
  private boolean retired;

  private PageIndex(UnsafeBuffer index) {
    this.index = index;
    this.slots = PageIndexFlyweight.slots(index);
  }

  /**
   * Makes an empty index. Its blocks are all written, so that none is lacking later, when there is
   * nobody to tell.
   */
  static PageIndex create(Path unfinished, Path file, int pageLength, long pagesMax, long instance)
      throws IOException {
    Files.deleteIfExists(unfinished);
    int slots = PageIndexFlyweight.slotsFor(pagesMax);
    int length = PageIndexFlyweight.length(slots);
    UnsafeBuffer index;
    try (FileChannel channel = FileChannel.open(unfinished, CREATE_NEW, READ, WRITE)) {
      ByteBuffer zeros = ByteBuffer.allocateDirect(Math.min(ZEROS, length));
      for (int left = length; left > 0; ) {
        left -= channel.write(zeros.clear().limit(Math.min(left, zeros.capacity())));
      }
      index = new UnsafeBuffer(channel.map(MapMode.READ_WRITE, 0, length));
    }
    PageIndexFlyweight.writeHeader(index, pageLength, slots, instance);
    Files.move(unfinished, file, StandardCopyOption.ATOMIC_MOVE);
    return new PageIndex(index);
  }

  /** Ends an index that a former run has left, for whoever still reads it, and removes it. */
  static void end(Path file) throws IOException {
    try (FileChannel channel = FileChannel.open(file, READ, WRITE)) {
      if (channel.size() >= PageIndexFlyweight.HEADER_BYTES) {
        new UnsafeBuffer(channel.map(MapMode.READ_WRITE, 0, PageIndexFlyweight.HEADER_BYTES))
            .putLongVolatile(PageIndexFlyweight.INSTANCE_OFFSET, 0);
      }
    }
    Files.delete(file);
  }

  /** Tells where a page lies, once it is whole; if its slots are all taken, nobody is told. */
  synchronized void add(PageKey key, long offset) {
    for (int place = 0; place < PageIndexFlyweight.WINDOW && !retired; place++) {
      int slot = PageIndexFlyweight.slot(key, place, slots);
      if (PageIndexFlyweight.offset(index, slot) == 0) {
        PageIndexFlyweight.write(index, slot, key, offset);
        return;
      }
    }
  }

  /** Takes a page out. When this returns, nobody will believe its bytes any more. */
  synchronized void remove(PageKey key) {
    for (int place = 0; place < PageIndexFlyweight.WINDOW; place++) {
      int slot = PageIndexFlyweight.slot(key, place, slots);
      if (PageIndexFlyweight.offset(index, slot) != 0
          && PageIndexFlyweight.hasKey(index, slot, key)) {
        PageIndexFlyweight.write(index, slot, key, 0);
      }
    }
  }

  /** Ends it for all readers. */
  synchronized void retire() {
    retired = true;
    index.putLongVolatile(PageIndexFlyweight.INSTANCE_OFFSET, 0);
  }
}
