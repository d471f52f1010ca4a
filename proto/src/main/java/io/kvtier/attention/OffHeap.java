package io.kvtier.attention;

import java.lang.foreign.MemorySegment;

/**
 * All of memory as one segment, so that kernels take plain addresses: of device slots, of mapped
 * pages. A constant, which lets the compiler drop the checks. Whoever passes an address answers for
 * the bytes behind it: that they are there, and stay there during the call.
 */
final class OffHeap {
  @SuppressWarnings("restricted") // the flags allow native access, and this is what it is for
  static final MemorySegment ALL = MemorySegment.NULL.reinterpret(Long.MAX_VALUE);

  /** No address is larger. */
  private static final long ADDRESS_MAX = Long.MAX_VALUE >>> 1;

  private OffHeap() {}

  /**
   * The same address, which the compiler then knows to be neither negative nor near the end: loads
   * a little behind it need no checks.
   */
  static long address(long address) {
    return address & ADDRESS_MAX;
  }
}
