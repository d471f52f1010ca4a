package io.kvtier.integration.planted.demo;

/** A demo that reaches around the client. */
final class CheatingDemo {
  private CheatingDemo() {}

  static String shortcut() {
    return io.kvtier.gpuworker.GpuWorker.class.getName();
  }
}
