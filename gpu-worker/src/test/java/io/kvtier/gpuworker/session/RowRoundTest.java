package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.device.DeviceMemory;
import org.junit.jupiter.api.Test;

class RowRoundTest {
  @Test
  void aRoundThatFailsLeavesNothingPending() {
    DeviceMemory memory = new DeviceMemory(1 << 20);
    RowArena arena = new RowArena(memory);
    arena.reset(64);
    arena.limit(100_000);
    // Rows that a prefetch which was given up is still to bring.
    int[] keys = new int[10];
    for (int i = 0; i < 10; i++) {
      keys[i] = RowArena.key(0, i);
    }
    arena.admitAll(keys, 10, new int[10]);
    RowLookup lookup = new RowLookup();
    RowRound round = new RowRound(arena, memory.reserve(0), 64 * 64);
    for (int i = 0; i < 10; i++) {
      round.batch.add(i, 0, i);
    }
    for (int i = 0; i < 20; i++) {
      round.batch.add(64 + i, 0, 10 + i);
    }
    memory.occupy(memory.bytesFree());
    assertThatThrownBy(() -> round.findPlaces(lookup)).isInstanceOf(KvtierException.class);
    round.release();
    for (int i = 0; i < 20; i++) {
      int row = arena.find(RowArena.key(0, 64 + i));
      assertThat(row == RowArena.ABSENT || !arena.isPending(row)).as("row " + i).isTrue();
    }
  }
}
