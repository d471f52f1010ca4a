package io.kvtier.integration.planted.tier;

/** A tier that knows the worker. */
final class NosyTier {
  private NosyTier() {}

  static String peer() {
    return io.kvtier.gpuworker.GpuWorker.class.getName();
  }
}
