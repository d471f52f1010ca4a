package io.kvtier.integration.planted.worker;

/** A worker that knows the tier. */
final class NosyWorker {
  private NosyWorker() {}

  static String peer() {
    return io.kvtier.cachetier.CacheTier.class.getName();
  }
}
