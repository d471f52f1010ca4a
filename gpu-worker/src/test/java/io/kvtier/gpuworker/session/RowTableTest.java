package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.HashMap;
import java.util.Map;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

class RowTableTest {
  private RowTable table = new RowTable();

  @Test
  void anEmptyTableHasNothing() {
    int[] found = {7};
    table.findAll(new int[] {1}, 1, found, new long[0]);
    assertThat(found).containsExactly(RowTable.ABSENT);
    assertThat(table.find(1, new long[0])).isEqualTo(RowTable.ABSENT);
    assertThat(RowTable.entriesFor(0)).isZero();
  }

  /** What it takes is known beforehand, and never more than three quarters of it are used. */
  @Test
  void isNeverFull() {
    for (int rows = 1; rows < 5000; rows++) {
      int entries = RowTable.entriesFor(rows);
      assertThat(Integer.bitCount(entries)).isOne();
      assertThat(rows).isLessThanOrEqualTo((entries * 3 + 3) / 4).isLessThan(entries);
    }
  }

  /** Against a map, with keys of random hashes: runs are short. */
  @Test
  void findsWhatItHolds() {
    changes(1024, 768, 1 << 20, 1, 60_000);
  }

  /** The same as in a table so long that an entry has one bit or none for displacements. */
  @Test
  void findsWhatItHoldsWhereDisplacementsAreNotTold() {
    for (int bits = 0; bits < 2; bits++) {
      table = new RowTable(bits);
      changes(1024, 768, 1 << 20, 1, 60_000);
    }
  }

  /**
   * The same with keys whose hashes crowd into runs of hundreds, so that most displacements are
   * larger than an entry tells.
   */
  @Test
  void findsWhatItHoldsWhereKeysCrowd() {
    changes(1024, 700, 1 << 20, 24, 60_000);
  }

  /**
   * Puts, finds and removes at random.
   *
   * @param crowd homes are so many times fewer than entries
   */
  private void changes(int entries, int rowsMax, int keys, int crowd, int count) {
    long seed = System.nanoTime();
    System.out.println("RowTableTest seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    table.reset(entries);
    long[] rows = new long[rowsMax];
    Map<Integer, Integer> expected = new HashMap<>();
    int used = 0;
    int[] freed = new int[rowsMax];
    int freedCount = 0;
    for (int i = 0; i < count; i++) {
      int key = key(random, keys, entries, crowd);
      Integer row = expected.get(key);
      assertThat(table.find(key, rows)).isEqualTo(row == null ? RowTable.ABSENT : row);
      if (row != null) {
        table.remove(row, rows);
        rows[row] = 0;
        freed[freedCount++] = row;
        expected.remove(key);
      } else if (freedCount > 0 || used < rowsMax) {
        int made = freedCount > 0 ? freed[--freedCount] : used++;
        rows[made] = (long) key << Integer.SIZE | 12345;
        table.insert(key, made);
        expected.put(key, made);
      } else if (random.nextInt(4) > 0) {
        // Full: makes room.
        int victim = random.nextInt(rowsMax);
        expected.remove((int) (rows[victim] >>> Integer.SIZE));
        table.remove(victim, rows);
        rows[victim] = 0;
        freed[freedCount++] = victim;
      }
    }
    assertThat(expected).hasSizeGreaterThan(rowsMax / 3);
    findAll(expected, rows, random, keys);
  }

  /** Many at once are found as one by one, those that are not there among them. */
  private void findAll(
      Map<Integer, Integer> expected, long[] rows, SplittableRandom random, int keys) {
    int[] wanted = new int[2 * expected.size()];
    int count = 0;
    for (int key : expected.keySet()) {
      wanted[count++] = key;
      wanted[count++] = random.nextInt(keys);
    }
    int[] found = new int[count];
    table.findAll(wanted, count, found, rows);
    for (int i = 0; i < count; i++) {
      assertThat(found[i]).isEqualTo(expected.getOrDefault(wanted[i], RowTable.ABSENT));
    }
  }

  private static int key(SplittableRandom random, int keys, int entries, int crowd) {
    while (true) {
      int key = random.nextInt(keys);
      int product = key * 0x9E3779B9;
      int home = (product ^ product >>> 15) & (entries - 1);
      if (home % 64 < 64 / crowd || crowd == 1) {
        return key;
      }
    }
  }
}
