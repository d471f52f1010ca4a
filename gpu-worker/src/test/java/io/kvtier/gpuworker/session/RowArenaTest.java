package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceSlot;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class RowArenaTest {
  private static final int ROW = 98;

  private final DeviceMemory memory = new DeviceMemory(64L << 20);
  private final RowArena arena = new RowArena(memory);

  @AfterEach
  void nothingIsLeft() {
    arena.reset(0);
    assertThat(arena.bytes()).isZero();
    assertThat(memory.bytesUsed()).isZero();
  }

  private int admit(int key) {
    int[] made = new int[1];
    arena.admitAll(new int[] {key}, 1, made);
    return made[0];
  }

  private void put(int key) {
    int row = admit(key);
    assertThat(row).isNotEqualTo(RowArena.ABSENT);
    arena.filled(row);
    arena.chunk(row).buffer().putInt(arena.offset(row), key);
  }

  private int read(int row) {
    return arena.chunk(row).buffer().getInt(arena.offset(row));
  }

  /** Against a map: what is found is what was put, and nothing that was taken out is found. */
  @Test
  void findsWhatItHoldsWhateverCameAndWent() {
    long seed = System.nanoTime();
    System.out.println("RowArenaTest seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    for (int trial = 0; trial < 20; trial++) {
      arena.reset(8 + random.nextInt(120));
      arena.limit(random.nextInt(400_000));
      Map<Integer, Integer> rows = new HashMap<>();
      Set<Integer> gone = new HashSet<>();
      for (int i = 0; i < 20_000; i++) {
        change(random, rows, gone);
        assertThat(arena.bytes()).isLessThanOrEqualTo(arena.bytesMax() + 100_000);
      }
      arena.endStep();
      assertThat(arena.bytes())
          .as("what was lent is given back")
          .isLessThanOrEqualTo(arena.bytesMax());
      rows.keySet().removeIf(key -> arena.find(key) == RowArena.ABSENT);
      rows.forEach((key, row) -> {
        assertThat(arena.find(key)).isEqualTo(row);
        assertThat(read(row)).isEqualTo(key);
      });
      assertThat(new HashSet<>(rows.values())).hasSameSizeAs(rows.keySet());
      gone.removeAll(rows.keySet());
      gone.forEach(key -> assertThat(arena.find(key)).isEqualTo(RowArena.ABSENT));
    }
  }

  private void change(SplittableRandom random, Map<Integer, Integer> rows, Set<Integer> gone) {
    int key = RowArena.key(random.nextInt(8), random.nextInt(2000));
    int row = arena.find(key);
    if (row != RowArena.ABSENT) {
      assertThat(read(row)).isEqualTo(key);
      if (random.nextInt(10) == 0) {
        arena.discard(row);
        rows.remove(key);
        gone.add(key);
      } else {
        arena.use(row);
      }
    } else {
      row = admit(key);
      if (row != RowArena.ABSENT) {
        arena.filled(row);
        arena.chunk(row).buffer().putInt(arena.offset(row), key);
        rows.put(key, row);
      }
    }
    if (random.nextInt(100) == 0) {
      arena.endStep();
    }
    if (random.nextInt(300) == 0) {
      arena.lend(random.nextInt(100_000));
    }
    if (random.nextInt(3000) == 0) {
      arena.limit(random.nextInt(400_000));
      arena.fit();
    }
  }

  /** Many at once are found as one by one, those that are not there among them. */
  @Test
  void findsManyAsItFindsEach() {
    int[] rows = new int[3000];
    int[] keys = new int[rows.length];
    arena.findAll(keys, keys.length, rows);
    assertThat(rows).containsOnly(RowArena.ABSENT);
    arena.reset(ROW);
    arena.limit(150_000);
    long seed = System.nanoTime();
    System.out.println("RowArenaTest seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    for (int i = 0; i < keys.length; i++) {
      keys[i] = RowArena.key(random.nextInt(8), 300 * i + random.nextInt(300));
      if (i % 3 == 0 && arena.find(keys[i]) == RowArena.ABSENT) {
        put(keys[i]);
      }
    }
    arena.findAll(keys, keys.length, rows);
    int found = 0;
    for (int i = 0; i < keys.length; i++) {
      assertThat(rows[i]).isEqualTo(arena.find(keys[i]));
      found += rows[i] == RowArena.ABSENT ? 0 : 1;
    }
    assertThat(found).isEqualTo(1000);
  }

  /** Keys whose hashes differ in the bits alone that say where they lie are told apart. */
  @Test
  void aNeighbourIsNotTakenForAKeyThatIsNotThere() {
    arena.reset(ROW);
    arena.limit(100_000);
    int hash = 1024;
    while (keyOf(hash) < 0 || keyOf(hash + 1) < 0 || keyOf(hash | 1 << 25) < 0) {
      hash += 1024;
    }
    put(keyOf(hash | 1 << 25));
    put(keyOf(hash + 1));
    int[] rows = new int[1];
    arena.findAll(new int[] {keyOf(hash)}, 1, rows);
    assertThat(rows[0]).isEqualTo(RowArena.ABSENT);
    assertThat(arena.find(keyOf(hash))).isEqualTo(RowArena.ABSENT);
    arena.findAll(new int[] {keyOf(hash + 1)}, 1, rows);
    assertThat(read(rows[0])).isEqualTo(keyOf(hash + 1));
  }

  /** The key that the arena hashes to this. */
  private static int keyOf(int hash) {
    int product = hash ^ hash >>> 15 ^ hash >>> 30;
    int inverse = 0x9E3779B9;
    for (int i = 0; i < 5; i++) {
      inverse *= 2 - 0x9E3779B9 * inverse;
    }
    return product * inverse;
  }

  @Test
  void whatRecursOutlastsWhatCameOnce() {
    arena.reset(ROW);
    arena.limit(100_000);
    for (int key = 0; key < 100; key++) {
      put(key);
    }
    int later = 1000;
    for (int step = 0; step < 50; step++) {
      arena.endStep();
      for (int key = 0; key < 100; key++) {
        arena.use(arena.find(key));
      }
      // More in two steps than the arena holds.
      for (int i = 0; i < 500; i++) {
        put(later++);
      }
    }
    assertThat(arena.bytes()).isBetween(80_000L, 100_000L);
    assertThat(arena.find(1000)).isEqualTo(RowArena.ABSENT);
  }

  /** What was used often outlasts steps that do without it; what came once does not. */
  @Test
  void usesAreCounted() {
    arena.reset(ROW);
    arena.limit(100_000);
    for (int key = 0; key < 200; key++) {
      put(key);
    }
    for (int step = 0; step < 6; step++) {
      arena.endStep();
      for (int key = 0; key < 100; key++) {
        arena.use(arena.find(key));
      }
    }
    int later = 1000;
    for (int step = 0; step < 4; step++) {
      arena.endStep();
      // More in two steps than the arena holds.
      for (int i = 0; i < 500; i++) {
        put(later++);
      }
    }
    for (int key = 0; key < 200; key++) {
      assertThat(arena.find(key) != RowArena.ABSENT).isEqualTo(key < 100);
    }
  }

  @Test
  void whatAStepUsesIsKeptUntilItEnds() {
    arena.reset(ROW);
    arena.limit(20_000);
    int kept = 0;
    while (true) {
      int row = admit(kept);
      if (row == RowArena.ABSENT) {
        break;
      }
      arena.filled(row);
      kept++;
      assertThat(kept).isLessThan(1000);
    }
    assertThat(kept).isGreaterThan(64);
    arena.endStep();
    arena.use(arena.find(3));
    for (int i = 1; i < kept; i++) {
      put(1000 + i);
    }
    assertThat(admit(5000)).isEqualTo(RowArena.ABSENT);
    assertThat(arena.find(3)).isNotEqualTo(RowArena.ABSENT);
    arena.endStep();
    put(5000);
    for (int i = 0; i < kept; i++) {
      assertThat(arena.find(i) != RowArena.ABSENT).isEqualTo(i == 3);
    }
  }

  /** A row that is to come belongs to who admitted it, and to nobody once its memory is gone. */
  @Test
  void aPendingRowIsAwaitedOnlyWhereItWas() {
    arena.reset(ROW);
    arena.limit(20_000);
    int row = admit(7);
    DeviceSlot chunk = arena.chunk(row);
    assertThat(arena.awaits(row, 7, chunk)).isTrue();
    assertThat(arena.awaits(row, 8, chunk)).isFalse();
    arena.reset(ROW);
    assertThat(arena.find(7)).isEqualTo(RowArena.ABSENT);
    assertThat(arena.awaits(row, 7, chunk)).isFalse();
    int again = admit(7);
    assertThat(arena.awaits(again, 7, arena.chunk(again))).isTrue();
    assertThat(arena.awaits(again, 7, chunk)).isFalse();
    arena.filled(again);
    assertThat(arena.awaits(again, 7, arena.chunk(again))).isFalse();
  }

  @Test
  void anArenaWithoutRoomHoldsNothing() {
    arena.reset(ROW);
    arena.limit(6_000);
    assertThat(admit(1)).isEqualTo(RowArena.ABSENT);
    assertThat(arena.find(1)).isEqualTo(RowArena.ABSENT);
    assertThat(arena.bytes()).isZero();
  }
}
