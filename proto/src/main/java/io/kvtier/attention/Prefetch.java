package io.kvtier.attention;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.HexFormat;
import org.jspecify.annotations.Nullable;

/**
 * Asks memory for cache lines ahead of their use. A load that misses holds a core up until the line
 * comes; the processor's prefetch instruction does not, never faults and changes nothing, and Java
 * has no way to say it. So these are its few instructions, in an executable page of this process.
 * On x86-64 Linux; elsewhere, where the system refuses such a page, or with the system property
 * {@code kvtier.prefetch=off}, nothing is asked for and only time is lost.
 */
final class Prefetch {
  private static final String PROPERTY = "kvtier.prefetch";

  /**
   * {@code void ask(long address, long length)}, at least one line:
   *
   * <pre>
   * 0f 18 0f     prefetcht0 [rdi]
   * 48 83 c7 40  add rdi, 64
   * 48 83 ee 40  sub rsi, 64
   * 7f f3        jg  to the first instruction
   * c3           ret
   * </pre>
   *
   * The comparison is signed, so that no length makes it run on.
   */
  private static final byte[] CODE = HexFormat.of().parseHex("0f180f4883c7404883ee407ff3c3");

  private static final int MAP_LENGTH = 4096;
  private static final int PROT_READ = 1;
  private static final int PROT_WRITE = 2;
  private static final int PROT_EXEC = 4;
  private static final int MAP_PRIVATE = 2;
  private static final int MAP_ANONYMOUS = 0x20;
  private static final long MAP_FAILED = -1;

  private static final @Nullable MethodHandle ASK =
      supported() && !System.getProperty(PROPERTY, "").equals("off") ? load() : null;

  private Prefetch() {}

  private static boolean supported() {
    return System.getProperty("os.name").equals("Linux")
        && System.getProperty("os.arch").equals("amd64");
  }

  /** Whether asking has an effect. */
  static boolean available() {
    return ASK != null;
  }

  /** Asks for the lines of {@code length} bytes from an address on. */
  static void lines(long address, int length) {
    if (ASK != null) {
      try {
        ASK.invokeExact(address, (long) length);
      } catch (Throwable e) {
        throw new LinkageError("prefetching cannot be called", e);
      }
    }
  }

  /** Writes the code to a page of its own, which is executable once it is no longer writable. */
  @SuppressWarnings("restricted") // the flags allow native access
  private static @Nullable MethodHandle load() {
    Linker linker = Linker.nativeLinker();
    MethodHandle map =
        linker.downcallHandle(
            linker.defaultLookup().findOrThrow("mmap"),
            FunctionDescriptor.of(
                JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG));
    MethodHandle protect =
        linker.downcallHandle(
            linker.defaultLookup().findOrThrow("mprotect"),
            FunctionDescriptor.of(JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT));
    try {
      int flags = MAP_PRIVATE | MAP_ANONYMOUS;
      long page =
          (long) map.invokeExact(0L, (long) MAP_LENGTH, PROT_READ | PROT_WRITE, flags, -1, 0L);
      if (page == MAP_FAILED) {
        return null;
      }
      MemorySegment code = MemorySegment.ofAddress(page).reinterpret(CODE.length);
      MemorySegment.copy(CODE, 0, code, JAVA_BYTE, 0, CODE.length);
      int refused = (int) protect.invokeExact(page, (long) MAP_LENGTH, PROT_READ | PROT_EXEC);
      if (refused != 0) {
        return null;
      }
      return linker.downcallHandle(
          code, FunctionDescriptor.ofVoid(JAVA_LONG, JAVA_LONG), Linker.Option.critical(false));
    } catch (Throwable e) {
      throw new LinkageError("memory for prefetching cannot be mapped", e);
    }
  }
}
