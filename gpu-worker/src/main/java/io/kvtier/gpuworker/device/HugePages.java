package io.kvtier.gpuworker.device;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.Optional;

/**
 * Asks the system to back memory with huge pages. A scan reads a few kilobytes of each page's
 * memory; with pages of 4 KiB each such piece costs one or two walks of the page tables, which take
 * longer than the reading. Where the system does not know the request, scans are slower and nothing
 * else changes.
 */
final class HugePages {
  /** Size and alignment of a huge page on x86-64 and, with 4 KiB granules, on AArch64. */
  static final int LENGTH = 2 << 20;

  private static final int MADV_HUGEPAGE = 14;

  @SuppressWarnings("restricted") // the flags allow native access
  private static final Optional<MethodHandle> MADVISE =
      System.getProperty("os.name").equals("Linux")
          ? Linker.nativeLinker()
              .defaultLookup()
              .find("madvise")
              .map(symbol ->
                  Linker.nativeLinker()
                      .downcallHandle(
                          symbol,
                          FunctionDescriptor.of(
                              ValueLayout.JAVA_INT,
                              ValueLayout.ADDRESS,
                              ValueLayout.JAVA_LONG,
                              ValueLayout.JAVA_INT)))
          : Optional.empty();

  private HugePages() {}

  /** Asks for huge pages under memory that starts at a multiple of {@link #LENGTH}. */
  static void advise(long address, long length) {
    if (MADVISE.isPresent()) {
      try {
        // A refusal leaves ordinary pages, which are right too.
        int _ =
            (int)
                MADVISE.get().invokeExact(MemorySegment.ofAddress(address), length, MADV_HUGEPAGE);
      } catch (Throwable e) {
        throw new LinkageError("madvise cannot be called", e);
      }
    }
  }
}
