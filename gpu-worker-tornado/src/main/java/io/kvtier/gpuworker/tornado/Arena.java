package io.kvtier.gpuworker.tornado;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.Map;
import java.util.TreeMap;

/**
 * Which parts of a lane's resident buffer are free: pieces of whole blocks of 64 bytes, the lowest
 * that fits first. Lengths are few, so holes are filled again. Safe for any number of threads.
 */
final class Arena {
  private static final int BLOCK_BYTES = WriteKernel.BLOCK * Integer.BYTES;

  private final String name;
  private final int blocks;
  private int used;

  /** Free ranges, in blocks: first to length. */
  private final TreeMap<Integer, Integer> free = new TreeMap<>();

  /** An arena of {@code blocks} blocks, all free. */
  Arena(String name, int blocks) {
    this.name = name;
    this.blocks = blocks;
    free.put(0, blocks);
  }

  /** Blocks that so many bytes need. */
  static int blocksOf(long bytes) {
    return Math.toIntExact((bytes + BLOCK_BYTES - 1) / BLOCK_BYTES);
  }

  /**
   * Takes a piece; returns its first block.
   *
   * @throws KvtierException EXHAUSTED if no free range is long enough
   */
  synchronized int take(int length) {
    for (Map.Entry<Integer, Integer> range : free.entrySet()) {
      if (range.getValue() >= length) {
        return takeFrom(range.getKey(), range.getValue(), length);
      }
    }
    throw new KvtierException(
        Code.EXHAUSTED,
        ("device memory is full: %d of %d bytes of %s are used, and %d more are needed in one"
                + " piece; close sessions or start the worker with more device bytes")
            .formatted(bytes(used), bytes(blocks), name, bytes(length)));
  }

  private int takeFrom(int first, int rangeLength, int length) {
    free.remove(first);
    if (rangeLength > length) {
      free.put(first + length, rangeLength - length);
    }
    used += length;
    return first;
  }

  /** Gives a piece back. */
  synchronized void give(int first, int length) {
    used -= length;
    int from = first;
    int to = first + length;
    Map.Entry<Integer, Integer> before = free.lowerEntry(first);
    if (before != null && before.getKey() + before.getValue() == from) {
      from = before.getKey();
    }
    Integer after = free.remove(to);
    if (after != null) {
      to += after;
    }
    free.put(from, to - from);
  }

  private static long bytes(int blocks) {
    return (long) blocks * BLOCK_BYTES;
  }

  synchronized long bytesUsed() {
    return bytes(used);
  }

  synchronized long bytesFree() {
    return bytes(blocks - used);
  }

  /**
   * Bytes that can be had for sure in pieces of at most {@code longest} blocks, whatever their
   * lengths and order: of each free range all but what is too short for the longest.
   */
  synchronized long bytesFree(int longest) {
    int sure = 0;
    for (int range : free.values()) {
      sure += Math.max(0, range - longest + 1);
    }
    return bytes(sure);
  }

  long bytesMax() {
    return bytes(blocks);
  }
}
