package io.kvtier.gpuworker.cpu;

import io.kvtier.page.PageKey;
import java.util.concurrent.atomic.AtomicInteger;

/** A page's key, and how many layers of forked sessions have the page. */
final class ResidentPage {
  private final PageKey key;
  private final AtomicInteger layers = new AtomicInteger(1);

  /** A page of one layer. */
  ResidentPage(PageKey key) {
    this.key = key;
  }

  PageKey key() {
    return key;
  }

  /** One more layer has this page; the caller's own layer has it already. */
  ResidentPage share() {
    layers.incrementAndGet();
    return this;
  }

  /** One layer less has this page; true if it was the last. */
  boolean release() {
    return layers.decrementAndGet() == 0;
  }
}
