package io.kvtier.gpuworker.cpu;

import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.page.PageKey;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A page as the device knows it: its key and its sketch of all heads. Immutable; shared by the
 * layers of forked sessions.
 */
final class ResidentPage {
  private final PageKey key;
  private final DeviceSlot sketch;
  private final AtomicInteger layers = new AtomicInteger(1);

  /** A page of one layer; holds the slot from now on. */
  ResidentPage(PageKey key, DeviceSlot sketch) {
    this.key = key;
    this.sketch = sketch;
  }

  PageKey key() {
    return key;
  }

  /** {@code [kvHeads]} times the sections of {@code LayerShape.SKETCH}, laid end to end. */
  DeviceSlot sketch() {
    return sketch;
  }

  /** One more layer has this page; the caller's own layer has it already. */
  ResidentPage share() {
    layers.incrementAndGet();
    return this;
  }

  /** One layer less has this page; true if it was the last. */
  boolean release() {
    if (layers.decrementAndGet() > 0) {
      return false;
    }
    sketch.release();
    return true;
  }
}
