package io.kvtier.gpuworker.device;

/**
 * Where layers live and attention is computed. Safe for any number of threads; each layer is for
 * one at a time.
 */
public interface AttentionDevice extends AutoCloseable {
  /** Name and size for people, for example {@code cpu}. */
  String name();

  /** The memory that all its sessions share. */
  DeviceMemory memory();

  /** An empty layer. */
  DeviceLayer newLayer(int layer, LayerShape shape);

  @Override
  void close();
}
