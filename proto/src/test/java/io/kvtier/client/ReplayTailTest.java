package io.kvtier.client;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.rpc.Tensors;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.KvChunk;
import io.kvtier.v1.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class ReplayTailTest {
  private static final int HEAD_DIM = 16;

  /** Elements are bounded. */
  private static final int WRAP = 4096;

  private static final long ROW_BYTES = 2L * HEAD_DIM * Float.BYTES;

  private static final Geometry GEOMETRY =
      Geometry.newBuilder()
          .setLayers(2)
          .setQHeads(1)
          .setKvHeads(1)
          .setHeadDim(HEAD_DIM)
          .setKvDtype(Dtype.DTYPE_FP32)
          .build();

  /** Rows that tell their position; values are the negative. */
  private static Tensor rows(int from, int count, int sign) {
    float[] rows = new float[count * HEAD_DIM];
    for (int i = 0; i < rows.length; i++) {
      rows[i] = sign * ((from + i / HEAD_DIM) % WRAP);
    }
    return Tensors.of(Dtype.DTYPE_FP32, rows, count, 1, HEAD_DIM);
  }

  private static void append(ReplayTail tail, int layer, int from, int count) {
    tail.append(layer, from, rows(from, count, 1), rows(from, count, -1), count);
  }

  private static List<Integer> replayed(ReplayTail tail, int layer, int from) {
    List<Integer> positions = new ArrayList<>();
    tail.replay(layer, from, chunk -> positions.addAll(positions(chunk, layer)));
    return positions;
  }

  private static List<Integer> positions(KvChunk chunk, int layer) {
    int tokens = chunk.getKeys().getShape(0);
    float[] keys = Tensors.toFloats("keys", chunk.getKeys(), tokens, 1, HEAD_DIM);
    float[] values = Tensors.toFloats("values", chunk.getValues(), tokens, 1, HEAD_DIM);
    List<Integer> positions = new ArrayList<>();
    assertThat(chunk.getLayer()).isEqualTo(layer);
    for (int t = 0; t < tokens; t++) {
      assertThat(keys[t * HEAD_DIM + 3]).isEqualTo((chunk.getPosition() + t) % WRAP);
      assertThat(values[t * HEAD_DIM + 3]).isEqualTo(-keys[t * HEAD_DIM + 3]);
      positions.add(chunk.getPosition() + t);
    }
    return positions;
  }

  private static List<Integer> range(int from, int to) {
    return IntStream.range(from, to).boxed().toList();
  }

  @Test
  void givesBackWhatIsNotDurable() {
    ReplayTail tail = new ReplayTail(GEOMETRY, 1 << 20);
    append(tail, 0, 0, 100);
    append(tail, 0, 100, 1);
    append(tail, 1, 0, 30);
    tail.durable(0, 64);
    assertThat(tail.kept(0)).isEqualTo(64);
    assertThat(tail.end(0)).isEqualTo(101);
    assertThat(replayed(tail, 0, 64)).isEqualTo(range(64, 101));
    assertThat(replayed(tail, 0, 90)).isEqualTo(range(90, 101));
    assertThat(replayed(tail, 1, 0)).isEqualTo(range(0, 30));
    tail.durable(0, 0);
    assertThat(tail.kept(0)).as("what was durable once").isEqualTo(64);
  }

  /** A decode that goes on for ever stays in the same rings. */
  @Test
  void growsOnlyAsFarAsIsNeeded() {
    ReplayTail tail = new ReplayTail(GEOMETRY, 1 << 20);
    long settled = 0;
    for (int position = 0; position < 5000; position++) {
      append(tail, 0, position, 1);
      append(tail, 1, position, 1);
      int durable = Math.max(0, (position - 100) / 64 * 64);
      tail.durable(0, durable);
      tail.durable(1, durable);
      settled = position == 400 ? tail.bytes() : settled;
    }
    assertThat(tail.bytes()).isEqualTo(settled).isEqualTo(2 * 256 * ROW_BYTES);
    assertThat(replayed(tail, 1, tail.kept(1))).isEqualTo(range(tail.kept(1), 5000));
  }

  @Test
  void layersOfADecodeAreKeptFromWhereTheLeastOfThemIsDurable() {
    ReplayTail tail = new ReplayTail(GEOMETRY, 1 << 20);
    append(tail, 0, 0, 300);
    append(tail, 1, 0, 300);
    tail.comeBackEven();
    tail.durable(0, 192);
    assertThat(tail.kept(0)).isZero();
    tail.durable(1, 128);
    assertThat(tail.kept(0)).isEqualTo(128);
    assertThat(tail.kept(1)).isEqualTo(128);
  }

  @Test
  void dropsTheOldestRowsWhereItIsFull() {
    ReplayTail tail = new ReplayTail(GEOMETRY, 128 * ROW_BYTES);
    append(tail, 0, 0, 200);
    assertThat(tail.bytes()).isEqualTo(128 * ROW_BYTES);
    assertThat(tail.kept(0)).isEqualTo(72);
    assertThat(replayed(tail, 0, 72)).isEqualTo(range(72, 200));
    append(tail, 1, 0, 5);
    assertThat(tail.kept(1)).as("no bytes are left").isEqualTo(5);
    assertThat(tail.end(1)).isEqualTo(5);
  }

  @Test
  void rowsThatWereRefusedAreReplaced() {
    ReplayTail tail = new ReplayTail(GEOMETRY, 1 << 20);
    append(tail, 0, 0, 80);
    append(tail, 0, 40, 8);
    assertThat(tail.end(0)).isEqualTo(48);
    assertThat(replayed(tail, 0, 0)).isEqualTo(range(0, 48));
    append(tail, 0, 60, 4);
    assertThat(tail.kept(0)).as("a gap").isEqualTo(60);
  }

  @Test
  void someRowsOfATreeAreKept() {
    ReplayTail tail = new ReplayTail(GEOMETRY, 1 << 20);
    tail.begin(0, 7);
    tail.append(0, rows(6, 5, 1), rows(6, 5, -1), List.of(1, 2));
    assertThat(replayed(tail, 0, 7)).isEqualTo(range(7, 9));
  }

  @Test
  void aCopyIsItsOwn() {
    ReplayTail tail = new ReplayTail(GEOMETRY, 1 << 20);
    append(tail, 0, 0, 10);
    ReplayTail copy = tail.copy();
    append(tail, 0, 10, 10);
    assertThat(replayed(copy, 0, 0)).isEqualTo(range(0, 10));
    assertThat(replayed(tail, 0, 0)).isEqualTo(range(0, 20));
  }

  /** Forking is not the time to copy what a prompt took on its way. */
  @Test
  void aCopyTakesNoMoreThanItsRowsNeed() {
    ReplayTail tail = new ReplayTail(GEOMETRY, 1 << 24);
    append(tail, 0, 0, 5000);
    append(tail, 1, 0, 5000);
    tail.durable(0, 4928);
    tail.durable(1, 4800);
    ReplayTail copy = tail.copy();
    assertThat(copy.bytes()).isEqualTo((128 + 256) * ROW_BYTES);
    assertThat(tail.bytes()).isEqualTo(2 * 8192 * ROW_BYTES);
    append(copy, 1, 5000, 100);
    assertThat(replayed(copy, 0, 4928)).isEqualTo(range(4928, 5000));
    assertThat(replayed(copy, 1, 4800)).isEqualTo(range(4800, 5100));
    assertThat(copy.bytes()).isEqualTo((128 + 512) * ROW_BYTES);
  }
}
