package io.kvtier.gpuworker;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceProvider;
import java.util.List;
import java.util.ServiceLoader;
import java.util.function.Consumer;

/** The devices of this build, by name. */
public final class Devices {
  /** The processor; every build has it. */
  public static final String CPU = "cpu";

  private Devices() {}

  /** The kinds of this build beside {@link #CPU}. */
  public static List<DeviceProvider> providers() {
    return ServiceLoader.load(DeviceProvider.class).stream()
        .map(ServiceLoader.Provider::get)
        .toList();
  }

  /**
   * Opens a device.
   *
   * @param name {@code cpu}, or {@code kind} or {@code kind:address} of a provider
   * @param bytesMax bytes for sessions
   * @param progress hears what an opening that takes seconds is at
   * @throws KvtierException UNAVAILABLE if this build has no such kind; else as {@link
   *     DeviceProvider#open}
   */
  public static AttentionDevice open(String name, long bytesMax, Consumer<String> progress) {
    if (name.equals(CPU)) {
      return new CpuDevice(bytesMax);
    }
    int colon = name.indexOf(':');
    String kind = colon < 0 ? name : name.substring(0, colon);
    String address = colon < 0 ? "" : name.substring(colon + 1);
    List<DeviceProvider> providers = providers();
    for (DeviceProvider provider : providers) {
      if (provider.kind().equals(kind)) {
        return provider.open(address, bytesMax, progress);
      }
    }
    String kinds = CPU;
    for (DeviceProvider provider : providers) {
      kinds += ", " + provider.kind();
    }
    throw new KvtierException(
        Code.UNAVAILABLE,
        ("no device is called '%s' here; this build has %s. A build has tornado if TORNADOVM_HOME"
                + " named a TornadoVM SDK when it was made; 'kvtier doctor' says what is missing")
            .formatted(name, kinds));
  }
}
