package io.kvtier.benchmark;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.Scratch;
import io.kvtier.gpuworker.device.DeviceMemory;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.SplittableRandom;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.TearDown;

/**
 * Benchmarks that read device memory, in huge pages as a worker's. {@code copy} and {@code read} go
 * through one region in the order of the walk: memcpy to memory that exceeds the caches too, and a
 * word of each cache line with eight lines under way.
 */
public abstract class DeviceBenchmark extends LayerBenchmark {
  /** Copies go to so many bytes at least, where there are as many: more than caches hold. */
  private static final int COPY_BYTES = 64 << 20;

  final Scratch scratch = new Scratch(GroupQuery.GROUP_MAX, HEAD_DIM);
  private final DeviceMemory memory = new DeviceMemory(2L << 30);
  private MemorySegment from = MemorySegment.NULL;
  private MemorySegment to = MemorySegment.NULL;
  private int pieceLength;

  /** Device memory full of random bits, of which any 16 are a finite fp16 or bf16 number. */
  final MemorySegment random(int length) {
    MemorySegment segment = allocate(length);
    SplittableRandom random = new SplittableRandom(length);
    for (long i = 0; i < length; i += Long.BYTES) {
      segment.set(ValueLayout.JAVA_LONG, i, random.nextLong() & 0xBFFF_BFFF_BFFF_BFFFL);
    }
    return segment;
  }

  @SuppressWarnings("restricted") // the flags allow native access
  final MemorySegment allocate(int length) {
    long address = memory.allocate(length).buffer().addressOffset();
    return MemorySegment.ofAddress(address).reinterpret(length);
  }

  /** Sets what is copied and read: pieces of one length, a page of one head each. */
  final void setReference(MemorySegment region, int pieceLength) {
    this.from = region;
    this.pieceLength = pieceLength;
    int pieces = Math.min(headPages(), Integer.highestOneBit(COPY_BYTES / pieceLength) * 2);
    this.to = allocate(pieces * pieceLength);
  }

  @Benchmark
  public void copy(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      long at = (long) place(i) * pieceLength;
      MemorySegment.copy(from, at, to, at % to.byteSize(), pieceLength);
    }
    traffic.bytes += (long) STEP * pieceLength;
  }

  @Benchmark
  public void read(Traffic traffic) {
    int first = advance();
    for (int i = first; i < first + STEP; i++) {
      kernels.touch(from.address() + (long) place(i) * pieceLength, pieceLength, scratch);
    }
    traffic.bytes += (long) STEP * pieceLength;
  }

  @TearDown
  public void close() {
    memory.close();
  }
}
