package io.kvtier.deploy.bench;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.Scratch;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;

/**
 * Sketch scans of one query on one core from memory, against the inner product with fp32 keys, and
 * a streaming read as the limit. Sketches lie as a worker keeps them, scales and means included.
 */
final class ScanBenchmark {
  private static final int HEAD_DIM = 128;
  private static final int PAGES = 32_768;
  private static final int FP32_TOKENS = 1 << 18;

  private final String command;
  private final Kernels kernels = Kernels.best();
  private final GroupQuery query = new GroupQuery(1, HEAD_DIM);
  private final Scratch scratch = new Scratch(1, HEAD_DIM);
  private final float[] scores = new float[TOKENS];
  private final float[] rowScores = new float[TOKENS];

  ScanBenchmark(String command) {
    this.command = command;
    SplittableRandom random = new SplittableRandom(1);
    float[] values = new float[HEAD_DIM];
    for (int i = 0; i < HEAD_DIM; i++) {
      values[i] = (float) random.nextGaussian();
    }
    query.load(values, 0, true, kernels);
  }

  List<BenchRow> run(Benchmark.Progress progress) {
    Sketch one = Sketch.of(Residence.ONE_PLANE);
    Sketch two = Sketch.of(Residence.TWO_PLANES);
    List<BenchRow> rows = new ArrayList<>();
    try (Arena arena = Arena.ofShared()) {
      MemorySegment sketches = random(arena, (long) PAGES * two.length);
      MemorySegment keys = arena.allocate((long) FP32_TOKENS * HEAD_DIM * Float.BYTES, 64);
      keys.fill((byte) 0x3D);
      rows.add(compare(one, sketches, keys, ">= 14", progress));
      rows.add(compare(two, sketches, keys, ">= 6", progress));
      rows.add(streaming(two, sketches, keys, progress));
    }
    return rows;
  }

  private BenchRow compare(
      Sketch sketch,
      MemorySegment sketches,
      MemorySegment keys,
      String goal,
      Benchmark.Progress progress) {
    Runnable scan = () -> scan(sketches.address(), sketch);
    Runnable fp32 = () -> dot(keys.address());
    String name = "sketch scan, %d of 4 planes / fp32 dot".formatted(sketch.planes);
    double[] seconds = Turns.medianSeconds(scan, fp32, progress, name);
    double ours = PAGES * (double) TOKENS / seconds[0] / 1e6;
    double reference = FP32_TOKENS / seconds[1] / 1e6;
    return new BenchRow(name, ours, reference, ours / reference, "Mtok/s, 1 core", goal, command);
  }

  /** How near the scan is to reading its bytes. */
  private BenchRow streaming(
      Sketch sketch, MemorySegment sketches, MemorySegment keys, Benchmark.Progress progress) {
    Runnable scan = () -> scan(sketches.address(), sketch);
    Runnable read = () -> kernels.touch(keys.address(), (int) keys.byteSize(), scratch);
    String name = "sketch scan, %d planes / streaming read".formatted(sketch.planes);
    double[] seconds = Turns.medianSeconds(scan, read, progress, name);
    double ours = (double) PAGES * sketch.length / seconds[0] / 1e9;
    double reference = keys.byteSize() / seconds[1] / 1e9;
    return new BenchRow(name, ours, reference, ours / reference, "GB/s, 1 core", "", command);
  }

  private void scan(long sketches, Sketch sketch) {
    for (int page = 0; page < PAGES; page++) {
      long address = sketches + (long) page * sketch.length;
      if (page + 1 < PAGES) {
        kernels.prefetch(address + sketch.length, sketch.at.valueMean());
      }
      kernels.sketchScores(query, sketch.at, address, sketch.planes, scratch, scores);
    }
  }

  /** Sketches of one head with so many planes, as a worker keeps them. */
  private record Sketch(int planes, int length, HeadOffsets at) {
    static Sketch of(Residence residence) {
      PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, HEAD_DIM);
      return new Sketch(
          residence.planes(),
          layout.lengthOf(residence.sketch()),
          HeadOffsets.inSlots(layout, residence.sketch(), 0, residence.codes(layout)));
    }
  }

  private void dot(long keys) {
    int rowBytes = HEAD_DIM * Float.BYTES;
    for (int token = 0; token < FP32_TOKENS; token += TOKENS) {
      long row = keys + (long) token * rowBytes;
      kernels.rowScores(query, row, rowBytes, Float.BYTES, TOKENS, rowScores, 0, TOKENS);
    }
  }

  /** Random bits whose fp16 numbers are finite and not large. */
  private static MemorySegment random(Arena arena, long length) {
    MemorySegment memory = arena.allocate(length, 64);
    SplittableRandom random = new SplittableRandom(2);
    for (long i = 0; i < length; i += Long.BYTES) {
      memory.set(ValueLayout.JAVA_LONG, i, random.nextLong() & 0xBFFF_BFFF_BFFF_BFFFL);
    }
    return memory;
  }
}
