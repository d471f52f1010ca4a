package io.kvtier.gpuworker.core;

import java.util.Arrays;

/**
 * The largest of a long row of masses, in one pass and without a sort: masses below a floor are not
 * taken, and when the room is used up, all but the {@code keep} largest are dropped and the floor
 * rises to what the dropped had. Ties, to a bucket of {@link MassHistogram}, go to the earlier
 * position. Positions must come rising. One thread; whoever adds writes the arrays and the count
 * directly.
 */
public final class Candidates {
  /** Masses written at once may go so far beyond the count. */
  public static final int SLACK = 80;

  private static final int ROOM_MIN = 1024;

  private final MassHistogram histogram = new MassHistogram();
  private int keep;

  /** Rising positions; {@code [0, count)} are valid. */
  public int[] positions = new int[0];

  /** Their masses. */
  public float[] masses = new float[0];

  /** How many there are. */
  public int count;

  /** Smaller masses need not be offered; above 0. */
  public float floor;

  /** No mass below this is among the {@code keep} largest of all, wherever it lies. */
  public float floorOfAll;

  /**
   * Empties it.
   *
   * @param keep how many of the largest must survive, 1 or more
   * @param offered most that will be offered
   */
  public void clear(int keep, int offered) {
    this.keep = keep;
    this.count = 0;
    this.floor = Float.MIN_NORMAL;
    this.floorOfAll = 0;
    int room = (int) Math.min(offered, Math.max(ROOM_MIN, 4L * keep)) + SLACK;
    if (positions.length < room) {
      positions = new int[room];
      masses = new float[room];
    }
  }

  /** Makes room for {@link #SLACK} more. True if the floors have risen. */
  public boolean makeRoom() {
    if (count + SLACK <= positions.length) {
      return false;
    }
    boolean risen = count > keep;
    compact();
    if (count + SLACK > positions.length) {
      grow(count + SLACK);
    }
    return risen;
  }

  /** Drops all but those that must survive, once no more come. True if the floors have risen. */
  public boolean finish() {
    boolean risen = count > keep;
    compact();
    return risen;
  }

  /**
   * Raises the floor to what {@link #floorOfAll} of others says; unlike the own floor it drops
   * nothing that could win a tie.
   */
  public void raise(float other) {
    floor = Math.max(floor, other);
  }

  /** Takes over what another collected of later positions. */
  public void addAll(Candidates later) {
    if (count + later.count + SLACK > positions.length) {
      grow(count + later.count + SLACK);
    }
    System.arraycopy(later.positions, 0, positions, count, later.count);
    System.arraycopy(later.masses, 0, masses, count, later.count);
    count += later.count;
  }

  private void grow(int room) {
    int length = Math.max(room, positions.length + positions.length / 2);
    positions = Arrays.copyOf(positions, length);
    masses = Arrays.copyOf(masses, length);
  }

  /** Drops all but the {@code keep} largest. */
  private void compact() {
    if (count <= keep) {
      return;
    }
    histogram.clear();
    for (int i = 0; i < count; i++) {
      histogram.add(masses[i]);
    }
    int bucket = MassHistogram.BUCKETS;
    int above = 0;
    while (above + histogram.count(bucket - 1) < keep) {
      above += histogram.count(--bucket);
    }
    // Of bucket - 1 only the earliest fit; what comes later in it can never enter.
    int threshold = bucket - 1;
    int atThreshold = keep - above;
    int n = 0;
    for (int i = 0; i < count; i++) {
      int own = MassHistogram.bucketOf(masses[i]);
      if (own > threshold || (own == threshold && atThreshold-- > 0)) {
        positions[n] = positions[i];
        masses[n++] = masses[i];
      }
    }
    count = n;
    floor = Math.max(floor, MassHistogram.lowest(bucket));
    floorOfAll = MassHistogram.lowest(threshold);
  }
}
