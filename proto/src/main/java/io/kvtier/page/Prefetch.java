package io.kvtier.page;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.HexFormat;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Asks memory for cache lines ahead of their use. A load that misses holds a core up until the line
 * comes; the processor's prefetch instruction does not, never faults and changes nothing, and Java
 * has no way to say it. So these are its few instructions, in an executable page of this process.
 * On x86-64 Linux; elsewhere, where the system refuses such a page, or with the system property
 * {@code kvtier.prefetch=off}, nothing is asked for and only time is lost.
 */
public final class Prefetch {
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

  /**
   * {@code void askEach(long[] addresses, long from, long count, long offset, long lines, long
   * step)}, at least one address and one line of it:
   *
   * <pre>
   * 48 8d 3c f7  lea rdi, [rdi + 8 rsi]
   * 48 8b 07     mov rax, [rdi]
   * 48 01 c8     add rax, rcx
   * 4c 89 c6     mov rsi, r8
   * 0f 18 08     prefetcht0 [rax]
   * 4c 01 c8     add rax, r9
   * 48 ff ce     dec rsi
   * 7f f5        jg  to the prefetch
   * 48 83 c7 08  add rdi, 8
   * 48 ff ca     dec rdx
   * 7f e3        jg  to the load
   * c3           ret
   * </pre>
   */
  private static final byte[] CODE_EACH =
      HexFormat.of()
          .parseHex("488d3cf7488b074801c84c89c60f18084c01c848ffce7ff54883c70848ffca7fe3c3");

  /** Bytes of a cache line. */
  public static final int LINE = 64;

  private static final int MAP_LENGTH = 4096;
  private static final int PROT_READ = 1;
  private static final int PROT_WRITE = 2;
  private static final int PROT_EXEC = 4;
  private static final int MAP_PRIVATE = 2;
  private static final int MAP_ANONYMOUS = 0x20;
  private static final long MAP_FAILED = -1;

  private static final boolean WANTED =
      supported() && !System.getProperty(PROPERTY, "").equals("off");

  private static final @Nullable MethodHandle ASK =
      WANTED ? load(CODE, false, JAVA_LONG, JAVA_LONG) : null;

  private static final @Nullable MethodHandle ASK_EACH =
      WANTED
          ? load(CODE_EACH, true, ADDRESS, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG)
          : null;

  private Prefetch() {}

  private static boolean supported() {
    return System.getProperty("os.name").equals("Linux")
        && System.getProperty("os.arch").equals("amd64");
  }

  /** Whether asking has an effect. */
  public static boolean available() {
    return ASK != null;
  }

  /** Asks for the lines of {@code length} bytes from an address on. */
  public static void lines(long address, int length) {
    if (ASK != null) {
      try {
        ASK.invokeExact(address, (long) length);
      } catch (Throwable e) {
        throw new LinkageError("prefetching cannot be called", e);
      }
    }
  }

  /**
   * Asks for lines behind each of some addresses.
   *
   * @param addresses as longs, of an array, say: a segment made for each call may be garbage
   * @param offset of the first line, from an address
   * @param lines behind each, 1 or more, {@code step} bytes apart
   */
  public static void each(
      MemorySegment addresses, int from, int to, int offset, int lines, int step) {
    Objects.checkFromToIndex(from, to, addresses.byteSize() / Long.BYTES);
    if (ASK_EACH != null && from < to) {
      try {
        ASK_EACH.invokeExact(
            addresses, (long) from, (long) (to - from), (long) offset, (long) lines, (long) step);
      } catch (Throwable e) {
        throw new LinkageError("prefetching cannot be called", e);
      }
    }
  }

  /** Writes the code to a page of its own, which is executable once it is no longer writable. */
  @SuppressWarnings("restricted") // the flags allow native access
  private static @Nullable MethodHandle load(
      byte[] instructions, boolean heap, MemoryLayout... arguments) {
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
      MemorySegment code = MemorySegment.ofAddress(page).reinterpret(instructions.length);
      MemorySegment.copy(instructions, 0, code, JAVA_BYTE, 0, instructions.length);
      int refused = (int) protect.invokeExact(page, (long) MAP_LENGTH, PROT_READ | PROT_EXEC);
      if (refused != 0) {
        return null;
      }
      return linker.downcallHandle(
          code, FunctionDescriptor.ofVoid(arguments), Linker.Option.critical(heap));
    } catch (Throwable e) {
      throw new LinkageError("memory for prefetching cannot be mapped", e);
    }
  }
}
