package io.kvtier.gpuworker.device;

import java.util.OptionalLong;

/**
 * Where layers live and attention is computed. Safe for any number of threads; each layer is for
 * one at a time.
 */
public interface AttentionDevice extends AutoCloseable {
  /** One line for people: what it is and computes with. */
  String name();

  /** The memory that all its sessions share. */
  DeviceMemory memory();

  /**
   * Measures how fast the device copies within its memory: bytes a second, what is read and what is
   * written counted each. Takes a second or so.
   */
  double copyBandwidth();

  /**
   * Does some work and tells for how long the device's kernels ran meanwhile, by the device's own
   * clock: nanoseconds, empty where the processor computes itself. Slows the device down; nobody
   * else should use it meanwhile.
   */
  default OptionalLong kernelNs(Runnable work) {
    work.run();
    return OptionalLong.empty();
  }

  /** Whether layers attend to pages of more than four bits an element as finely as these are. */
  default boolean attendsFiner() {
    return false;
  }

  /** An empty layer. */
  DeviceLayer newLayer(int layer, LayerShape shape);

  @Override
  void close();
}
