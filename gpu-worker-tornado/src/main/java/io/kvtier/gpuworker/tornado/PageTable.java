package io.kvtier.gpuworker.tornado;

import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/** Where one kind of slot of a head's pages lies, resident beside them. Guarded by its layer. */
final class PageTable {
  private static final int BLOCK = WriteKernel.BLOCK;

  /** Pages that the first table has room for. */
  private static final int ROOM_MIN = 256;

  private final Lane lane;
  private int[] firstInts = new int[0];
  private int count;

  /** Pages that the resident table has. */
  private int written;

  private @Nullable Place place;

  PageTable(Lane lane) {
    this.lane = lane;
  }

  /**
   * Makes room for so many pages in all; what was there moves.
   *
   * @throws io.kvtier.KvtierException EXHAUSTED if there is none; nothing has changed then
   */
  void reserve(int pages) {
    if (pages > firstInts.length) {
      int room = (Math.max(pages, nextBlocks() * BLOCK) + BLOCK - 1) & -BLOCK;
      Place larger = Place.take(lane, (long) room * Integer.BYTES);
      firstInts = Arrays.copyOf(firstInts, room);
      if (place != null) {
        place.release();
      }
      place = larger;
      written = 0;
    }
  }

  /** Blocks that the next larger table takes, unless very many pages are added at once. */
  int nextBlocks() {
    return Math.max(ROOM_MIN, 2 * firstInts.length) / BLOCK;
  }

  /** Adds a page; there is room. */
  void add(Place page) {
    firstInts[count++] = page.firstInt();
  }

  /** Adds what is not resident yet to an upload: each block once, since blocks go in no order. */
  void writeTo(Upload upload) {
    if (place != null && written < count) {
      int first = written / BLOCK;
      int blocks = (count + BLOCK - 1) / BLOCK - first;
      upload.add(place.first() + first, firstInts, first * BLOCK, blocks);
      written = count;
    }
  }

  /** Forgets the pages. */
  void clear() {
    count = 0;
    written = 0;
  }

  int count() {
    return count;
  }

  /** Where the table begins, for the kernels; 0 while it is empty. */
  int firstInt() {
    return place == null ? 0 : place.firstInt();
  }

  void release() {
    if (place != null) {
      place.release();
      place = null;
      firstInts = new int[0];
      clear();
    }
  }
}
