package io.kvtier.cachetier.memory;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import org.agrona.BitUtil;

/**
 * The C library's allocator. Blocks are freed one by one, and what is free serves blocks of any
 * length again; an {@code Arena} a page would cost a handshake of all threads at each free.
 */
@SuppressWarnings("restricted") // Native calls are this class's purpose.
final class NativeMemory {
  private static final int ALIGNMENT = 64;
  private static final Linker LINKER = Linker.nativeLinker();
  private static final SymbolLookup LIBRARY = LINKER.defaultLookup();
  private static final MethodHandle ALLOCATE =
      LINKER.downcallHandle(
          LIBRARY.findOrThrow("aligned_alloc"),
          FunctionDescriptor.of(
              ValueLayout.JAVA_LONG, ValueLayout.JAVA_LONG, ValueLayout.JAVA_LONG));
  private static final MethodHandle FREE =
      LINKER.downcallHandle(
          LIBRARY.findOrThrow("free"), FunctionDescriptor.ofVoid(ValueLayout.JAVA_LONG));

  private NativeMemory() {}

  /**
   * Allocates a block, aligned to 64 bytes, of undefined contents.
   *
   * @return its address, or 0 if the system has no more memory
   */
  static long allocate(int length) {
    try {
      return (long) ALLOCATE.invokeExact((long) ALIGNMENT, (long) BitUtil.align(length, ALIGNMENT));
    } catch (Throwable e) {
      throw new IllegalStateException("aligned_alloc cannot be called", e);
    }
  }

  /** Frees a block, once. */
  static void free(long address) {
    try {
      FREE.invokeExact(address);
    } catch (Throwable e) {
      throw new IllegalStateException("free cannot be called", e);
    }
  }
}
