package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.device.DeviceMemory;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicLong;

/**
 * What the sessions of a device share of its memory. Exact rows, sketches, codes and the least of
 * what is staged are a session's own; hot sets have what these leave, each up to one level for all
 * (max-min fairness), so that the largest give way first and none for a smaller one. A part is
 * spared for pages and staged codes to come, so that these seldom have to wait for a hot set.
 *
 * <p>Safe for any number of threads. It waits for no layer: who holds one may call it, and a layer
 * that is busy gives back rows when its step ends.
 */
final class DevicePool {
  /** This share of the memory is spared. */
  private static final int SPARE_SHARE = 32;

  private final DeviceMemory memory;
  private final List<DeviceBudget> sessions = new CopyOnWriteArrayList<>();
  private final AtomicLong demotions = new AtomicLong();

  DevicePool(DeviceMemory memory) {
    this.memory = memory;
  }

  /** Takes a session in. */
  void join(DeviceBudget session) {
    sessions.add(session);
  }

  /** What a session held is free: the others' hot sets may have it. */
  void leave(DeviceBudget session) {
    sessions.remove(session);
    level(0);
  }

  /**
   * Makes room for a session that opens: hot sets give way, then heads of sessions that hold more
   * than an equal share.
   *
   * @param bytes that it takes at least
   * @throws io.kvtier.KvtierException EXHAUSTED if there are not as many
   */
  void admit(long bytes) {
    demote(bytes, memory.bytesMax() / (sessions.size() + 1));
    makeRoom(bytes);
    memory.requireFree(bytes);
  }

  /** Makes room for a session that is planned, up to its share, likewise. */
  void makeRoomForPlan(DeviceBudget session) {
    demote(session.wantedBeyondOwn(share()), share());
  }

  /**
   * Makes room for bytes of a session that demotes nothing itself: hot sets give way, then heads of
   * sessions that hold more than an equal share, but not for one that wants more than that.
   *
   * @param bytes that it needs and does not hold
   * @param own bytes that it holds then
   */
  void makeRoomBesideHeads(long bytes, long own) {
    if (own <= share()) {
      demote(bytes, share());
    }
    makeRoom(bytes);
  }

  /**
   * Has sessions that hold more than a share demote heads, the largest first, until hot sets can
   * give the rest. Layers that are busy are left alone.
   */
  private void demote(long bytes, long share) {
    if (reclaimable() >= bytes) {
      return;
    }
    List<DeviceBudget> largest = new ArrayList<>(sessions);
    largest.sort(Comparator.comparingLong(DeviceBudget::ownBytes).reversed());
    for (DeviceBudget session : largest) {
      session.giveUpBeyond(share, () -> reclaimable() >= bytes);
    }
  }

  /** Counts heads that hold less than they were to. */
  void demoted(int heads) {
    demotions.addAndGet(heads);
  }

  /** Heads that came to hold less than they were to, of all sessions so far. */
  long demotions() {
    return demotions.get();
  }

  /** Has hot sets give way until so many bytes, and half of what is spared, are free. */
  void makeRoom(long bytes) {
    if (memory.bytesFree() < bytes + spare() / 2) {
      level(bytes);
    }
  }

  /** Levels hot sets after plans have changed, or because bytes are needed beside them. */
  synchronized void level(long needed) {
    HotSet[] hotSets = sessions.stream().map(DeviceBudget::hotSet).toArray(HotSet[]::new);
    long[] wanted = new long[hotSets.length];
    Arrays.setAll(wanted, i -> hotSets[i].bytesMax());
    long level = level(wanted, reclaimable() - spare() - needed);
    for (HotSet hotSet : hotSets) {
      hotSet.level(level);
    }
  }

  /** The highest level up to which all can have what they want of so many bytes. */
  static long level(long[] wanted, long bytes) {
    long[] rising = wanted.clone();
    Arrays.sort(rising);
    long left = Math.max(0, bytes);
    for (int i = 0; i < rising.length; i++) {
      long each = left / (rising.length - i);
      if (rising[i] > each) {
        return each;
      }
      left -= rising[i];
    }
    return Long.MAX_VALUE;
  }

  /** Bytes that are free, or would be if all hot sets gave way. */
  long reclaimable() {
    long bytes = memory.bytesFree();
    for (DeviceBudget session : sessions) {
      bytes += session.hotSet().slotBytes();
    }
    return bytes;
  }

  /**
   * Bytes that a session can be planned for, those included that it holds: an equal share of the
   * device, or what the others leave of it once they have as much as they want of theirs; and no
   * more than there are.
   */
  long planBytes(DeviceBudget session) {
    long there = session.ownBytes() + reclaimable();
    long share = share();
    long left = there;
    for (DeviceBudget other : sessions) {
      left -= other == session ? 0 : other.wantedBeyondOwn(share);
    }
    return Math.max(Math.min(there, share), left);
  }

  private long share() {
    return memory.bytesMax() / Math.max(1, sessions.size());
  }

  private long spare() {
    return memory.bytesMax() / SPARE_SHARE;
  }
}
