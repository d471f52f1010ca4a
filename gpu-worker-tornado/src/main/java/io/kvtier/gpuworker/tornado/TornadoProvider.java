package io.kvtier.gpuworker.tornado;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceProvider;
import java.util.List;
import java.util.function.Consumer;

/**
 * Devices that TornadoVM finds. Names none of TornadoVM's classes, which are there only in a
 * process that was started with its flags.
 */
public final class TornadoProvider implements DeviceProvider {
  /** For the service loader. */
  public TornadoProvider() {}

  @Override
  public String kind() {
    return "tornado";
  }

  @Override
  public List<String> devices() {
    requireFlags();
    return TornadoDevices.list();
  }

  /**
   * Opens a device.
   *
   * @param address {@code driver:device}; empty for 0:0
   */
  @Override
  public AttentionDevice open(String address, long bytesMax, Consumer<String> progress) {
    requireFlags();
    return TornadoDevices.open(address, bytesMax, progress);
  }

  private static void requireFlags() {
    if (System.getProperty("tornado.load.runtime.implementation") == null) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "this process was started without TornadoVM's flags; set TORNADOVM_HOME to its SDK and"
              + " start through ./kvtier");
    }
  }
}
