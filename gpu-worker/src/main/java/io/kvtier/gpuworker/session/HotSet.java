package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.core.HeadPolicy;

/**
 * A session's rows that stay on the device for later steps: an arena a layer, of a bound that they
 * share by how many heads choose tokens. The bound is the plan's, or what the device has for each
 * session's where that is less. Arenas are guarded by their layers' locks; this may be asked from
 * any thread.
 */
final class HotSet {
  private final SessionLayer[] layers;
  private volatile long bytesMax;

  /** What the device has for each session's; guarded by this. */
  private long level = Long.MAX_VALUE;

  private volatile boolean used;

  HotSet(SessionLayer[] layers) {
    this.layers = layers;
  }

  /** Most bytes that it keeps where the device has room. */
  long bytesMax() {
    return bytesMax;
  }

  /** Whether any head chooses tokens. */
  boolean isUsed() {
    return used;
  }

  /** Bytes that it holds, its tables included. */
  long bytes() {
    long bytes = 0;
    for (SessionLayer layer : layers) {
      bytes += layer.rows.bytes();
    }
    return bytes;
  }

  /** Bytes that it holds of the device's memory. */
  long slotBytes() {
    long bytes = 0;
    for (SessionLayer layer : layers) {
      bytes += layer.rows.slotBytes();
    }
    return bytes;
  }

  /** Lowers the bound to at most so many bytes. */
  synchronized void shrink(long most) {
    if (bytesMax > most) {
      resize(most);
    }
  }

  /** Sets the bound. A layer that is busy gives back what is too much when its step ends. */
  synchronized void resize(long most) {
    bytesMax = most;
    limitArenas();
  }

  /** Sets what the device has for each session's, likewise. */
  synchronized void level(long most) {
    boolean binds = Math.min(most, level) < bytesMax;
    level = most;
    if (binds) {
      limitArenas();
    }
  }

  private void limitArenas() {
    long shares = 0;
    for (SessionLayer layer : layers) {
      shares += layer.sketchedHeads;
    }
    used = shares > 0;
    double most = Math.min(bytesMax, level);
    for (SessionLayer layer : layers) {
      layer.rows.limit(shares == 0 ? 0 : (long) (most * layer.sketchedHeads / shares));
      layer.tryFitRows();
    }
  }

  /** How many heads of a layer choose tokens. */
  static int sketchedHeads(Iterable<HeadPolicy> policies) {
    int count = 0;
    for (HeadPolicy policy : policies) {
      count += policy.sketched() ? 1 : 0;
    }
    return count;
  }
}
