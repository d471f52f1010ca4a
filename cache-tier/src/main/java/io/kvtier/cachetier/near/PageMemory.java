package io.kvtier.cachetier.near;

import io.kvtier.page.PageLayout;
import java.lang.foreign.Arena;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Off-heap room for one page, in which a worker computes on its own copy: the store's lock is held
 * for the copy alone. Grows to the largest page seen. For one thread at a time.
 */
final class PageMemory implements AutoCloseable {
  /** Vectors may read so far beyond a section. */
  private static final int SLACK = 64;

  private Arena arena = Arena.ofShared();
  private UnsafeBuffer buffer = new UnsafeBuffer(0, 0);

  /** The address of the room, valid until the next {@link #copy}. */
  long address() {
    return buffer.addressOffset();
  }

  /** Copies some sections of some heads to where they lie in the page itself. */
  void copy(DirectBuffer page, int offset, PageLayout layout, int[] heads, int sections) {
    reserve(layout.pageLength() + SLACK);
    for (int head : heads) {
      for (int id = 0; id < io.kvtier.page.Section.count(); id++) {
        if ((sections & 1 << id) != 0) {
          io.kvtier.page.Section section = io.kvtier.page.Section.ofId(id);
          int at = layout.offset(head, section);
          buffer.putBytes(at, page, offset + at, layout.length(section));
        }
      }
    }
  }

  private void reserve(int bytes) {
    if (buffer.capacity() < bytes) {
      arena.close();
      arena = Arena.ofShared();
      buffer = new UnsafeBuffer(arena.allocate(bytes, PageLayout.ALIGNMENT).address(), bytes);
    }
  }

  @Override
  public void close() {
    arena.close();
  }
}
