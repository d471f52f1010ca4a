package io.kvtier.page;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.time.Duration;
import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class PrefetchTest {
  private static final byte[] BYTES = new byte[1000];

  static {
    for (int i = 0; i < BYTES.length; i++) {
      BYTES[i] = (byte) (31 * i);
    }
  }

  /** Whatever is asked for, the call comes back and nothing is changed. */
  @ParameterizedTest
  @ValueSource(ints = {1, 64, 65, 1000, 100_000, 0, -1, Integer.MIN_VALUE})
  void askingChangesNothing(int length) {
    assumeTrue(Prefetch.available(), "prefetching on x86-64 Linux");
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment memory = arena.allocate(BYTES.length, 64);
      MemorySegment.copy(BYTES, 0, memory, ValueLayout.JAVA_BYTE, 0, BYTES.length);
      Assertions.assertTimeoutPreemptively(
          Duration.ofSeconds(10),
          () -> {
            Prefetch.lines(memory.address(), length);
            Prefetch.lines(memory.address() + 13, length);
          });
      assertThat(memory.toArray(ValueLayout.JAVA_BYTE)).isEqualTo(BYTES);
    }
  }

  /** Of a part of some addresses, and no lines at all, too: the call comes back. */
  @ParameterizedTest
  @CsvSource({"0, 3, 1, 64", "1, 3, 4, 128", "2, 2, 3, 64", "0, 1, 16, -64", "0, 3, 0, 64"})
  void askingBehindEachChangesNothing(int from, int to, int lines, int step) {
    assumeTrue(Prefetch.available(), "prefetching on x86-64 Linux");
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment memory = arena.allocate(BYTES.length, 64);
      MemorySegment.copy(BYTES, 0, memory, ValueLayout.JAVA_BYTE, 0, BYTES.length);
      long[] addresses = {memory.address() + 13, 0, Long.MAX_VALUE};
      Assertions.assertTimeoutPreemptively(
          Duration.ofSeconds(10),
          () -> Prefetch.each(MemorySegment.ofArray(addresses), from, to, 64, lines, step));
      assertThat(memory.toArray(ValueLayout.JAVA_BYTE)).isEqualTo(BYTES);
      assertThat(addresses).containsExactly(memory.address() + 13, 0, Long.MAX_VALUE);
    }
  }

  /** The addresses are read by instructions that know no bounds. */
  @ParameterizedTest
  @CsvSource({"0, 4", "-1, 2", "3, 2"})
  void addressesBeyondTheArrayAreRefused(int from, int to) {
    assertThatThrownBy(() -> Prefetch.each(MemorySegment.ofArray(new long[3]), from, to, 0, 1, 64))
        .isInstanceOf(IndexOutOfBoundsException.class);
  }

  /** Memory that is not there is no fault. */
  @ParameterizedTest
  @ValueSource(longs = {0, 1, -1, Long.MIN_VALUE, Long.MAX_VALUE})
  void anyAddressWillDo(long address) {
    assumeTrue(Prefetch.available(), "prefetching on x86-64 Linux");
    Prefetch.lines(address, 256);
  }
}
