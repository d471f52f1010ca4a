package io.kvtier.gpuworker.device;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;
import org.agrona.UnsafeApi;

/**
 * Pieces of a few lengths, cut out of slabs of huge pages, neighbours in the order in which they
 * are taken. A slab none of whose pieces is in use goes back to the system, but for the last of its
 * length. Guarded by the caller.
 */
final class Slabs {
  private static final int SLAB_LENGTH = 2 * HugePages.LENGTH;

  private final Map<Integer, Deque<Slab>> withRoom = new HashMap<>();

  /** Where pieces of one length come from. */
  static final class Slab {
    private final long memory;
    private final int pieceLength;
    private final long[] free;
    private int freeCount;

    private Slab(int pieceLength) {
      int pieces = Math.max(1, SLAB_LENGTH / pieceLength);
      long length = Math.max(SLAB_LENGTH, (long) pieces * pieceLength);
      this.memory = UnsafeApi.allocateMemory(length + HugePages.LENGTH);
      this.pieceLength = pieceLength;
      this.free = new long[pieces];
      long first = (memory + HugePages.LENGTH - 1) & -HugePages.LENGTH;
      HugePages.advise(first, length);
      // Taken from the end: the first piece comes first.
      for (int piece = pieces - 1; piece >= 0; piece--) {
        free[freeCount++] = first + (long) piece * pieceLength;
      }
    }

    private boolean unused() {
      return freeCount == free.length;
    }
  }

  /** A piece: its address and the slab that it goes back to. */
  record Piece(long address, Slab slab) {}

  /** Takes a piece of unknown contents. */
  Piece take(int length) {
    Deque<Slab> slabs = withRoom.computeIfAbsent(length, l -> new ArrayDeque<>());
    if (slabs.isEmpty()) {
      slabs.addFirst(new Slab(length));
    }
    Slab slab = slabs.getFirst();
    long address = slab.free[--slab.freeCount];
    if (slab.freeCount == 0) {
      slabs.removeFirst();
    }
    return new Piece(address, slab);
  }

  /** Gives a piece back. */
  void give(Piece piece) {
    Slab slab = piece.slab;
    Deque<Slab> slabs = withRoom.computeIfAbsent(slab.pieceLength, l -> new ArrayDeque<>());
    if (slab.freeCount == 0) {
      slabs.addLast(slab);
    }
    slab.free[slab.freeCount++] = piece.address;
    if (slab.unused() && slabs.size() > 1) {
      slabs.remove(slab);
      UnsafeApi.freeMemory(slab.memory);
    }
  }

  /** Gives back the slabs that are kept without being used. */
  void trim() {
    for (Deque<Slab> slabs : withRoom.values()) {
      slabs.removeIf(slab -> {
        if (slab.unused()) {
          UnsafeApi.freeMemory(slab.memory);
        }
        return slab.unused();
      });
    }
  }
}
