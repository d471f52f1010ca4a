package io.kvtier.gpuworker.tornado;

import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Comparator;
import java.util.List;
import java.util.OptionalLong;

/** A GPU, or whatever else TornadoVM can run kernels on. */
final class TornadoDevice implements AttentionDevice {
  private final String name;
  private final List<Lane> lanes;
  private final boolean owner;

  /** Keeps the host's side of the layers, and counts the bytes. */
  private final CpuDevice host;

  /**
   * A device.
   *
   * @param lanes that layers are dealt out to
   * @param bytesMax bytes for sessions
   * @param owner whether closing the device closes the lanes
   */
  TornadoDevice(String name, List<Lane> lanes, long bytesMax, boolean owner) {
    this.name = name;
    this.lanes = List.copyOf(lanes);
    this.owner = owner;
    this.host = new CpuDevice(bytesMax);
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public DeviceMemory memory() {
    return host.memory();
  }

  @Override
  public double copyBandwidth() {
    return lanes.getFirst().copyBandwidth();
  }

  @Override
  public OptionalLong kernelNs(Runnable work) {
    lanes.forEach(Lane::startProfile);
    long kernelNs = 0;
    try {
      work.run();
    } finally {
      for (Lane lane : lanes) {
        kernelNs += lane.endProfile();
      }
    }
    return OptionalLong.of(kernelNs);
  }

  /** Goes to the lane that holds least. */
  @Override
  public DeviceLayer newLayer(int layer, LayerShape shape) {
    Lane lane =
        lanes.stream().min(Comparator.comparingLong(l -> l.arena.bytesUsed())).orElseThrow();
    DeviceLayer onHost = host.newLayer(layer, shape);
    try {
      return new TornadoLayer(onHost, shape, lane);
    } catch (RuntimeException e) {
      var _ = onHost.release();
      throw e;
    }
  }

  @Override
  public void close() {
    host.close();
    if (owner) {
      lanes.forEach(Lane::close);
    }
  }
}
