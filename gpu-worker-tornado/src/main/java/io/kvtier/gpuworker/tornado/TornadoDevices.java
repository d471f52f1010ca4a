package io.kvtier.gpuworker.tornado;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.device.AttentionDevice;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.Consumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import uk.ac.manchester.tornado.api.TornadoBackend;
import uk.ac.manchester.tornado.api.TornadoRuntime;
import uk.ac.manchester.tornado.api.common.TornadoDevice;
import uk.ac.manchester.tornado.api.runtime.TornadoRuntimeProvider;

/** Finds and opens devices through TornadoVM, whose classes must be there. */
final class TornadoDevices {
  private static final Pattern ADDRESS = Pattern.compile("(\\d{1,3}):(\\d{1,3})");

  /** One lane takes uploads while another computes. */
  private static final int LANES_MIN = 2;

  /** What a lane has for page tables and uneven layers: an eighth, and this. */
  private static final long SLACK = 4 << 20;

  private static final String MEMORY = "tornado.device.memory";

  private TornadoDevices() {}

  /** One line a device. */
  static List<String> list() {
    TornadoRuntime runtime = runtime(0);
    List<String> lines = new ArrayList<>();
    for (int driver = 0; driver < runtime.getNumBackends(); driver++) {
      TornadoBackend backend = runtime.getBackend(driver);
      for (int device = 0; device < backend.getNumDevices(); device++) {
        lines.add("tornado:%d:%d  %s".formatted(driver, device, describe(runtime, driver, device)));
      }
    }
    return lines;
  }

  private static String describe(TornadoRuntime runtime, int driver, int index) {
    TornadoDevice device = runtime.getBackend(driver).getDevice(index);
    return "%s, %s, %d MiB, at most %d MiB in one piece"
        .formatted(
            device.getPhysicalDevice().getDeviceName().strip(),
            runtime.getBackendType(driver).name().toLowerCase(Locale.ROOT),
            device.getMaxGlobalMemory() >> 20,
            device.getMaxAllocMemory() >> 20);
  }

  /** As {@link TornadoProvider#open}. */
  static AttentionDevice open(String address, long bytesMax, Consumer<String> progress) {
    Matcher parts = ADDRESS.matcher(address.isEmpty() ? "0:0" : address);
    if (!parts.matches()) {
      throw KvtierException.invalid(
          "device address is '%s'; it must be driver:device, as in tornado:0:1", address);
    }
    int driver = Integer.parseInt(parts.group(1));
    int index = Integer.parseInt(parts.group(2));
    TornadoRuntime runtime = runtime(bytesMax);
    if (driver >= runtime.getNumBackends() || index >= runtime.getBackend(driver).getNumDevices()) {
      throw new KvtierException(
          Code.NOT_FOUND,
          "there is no device tornado:%d:%d; there are: %s"
              .formatted(driver, index, String.join("; ", list())));
    }
    TornadoDevice device = runtime.getBackend(driver).getDevice(index);
    requireRoom(device, bytesMax);
    int count = lanes(bytesMax, device.getMaxAllocMemory());
    long laneBytes = bytesMax / count + bytesMax / count / 8 + SLACK;
    List<Lane> lanes = new ArrayList<>();
    try {
      for (int i = 0; i < count; i++) {
        String which = "lane %d of %d".formatted(i + 1, count);
        lanes.add(
            new Lane(
                which,
                device,
                laneBytes,
                device.getPhysicalDevice().getDeviceMaxComputeUnits(),
                graph ->
                    progress.accept("compiling the kernels of %s, %s".formatted(graph, which))));
      }
    } catch (RuntimeException e) {
      lanes.forEach(Lane::close);
      throw e;
    }
    String name =
        "tornado:%d:%d, %s, %d lanes"
            .formatted(driver, index, describe(runtime, driver, index), count);
    return new io.kvtier.gpuworker.tornado.TornadoDevice(name, lanes, bytesMax, true);
  }

  /**
   * So many that no resident buffer is longer than the device allows, or has more than 2^31 ints.
   */
  static int lanes(long bytesMax, long pieceMax) {
    long piece = Math.min(pieceMax, (long) Integer.MAX_VALUE * Integer.BYTES / 2);
    long usable = (piece - SLACK) / 9 * 8;
    return (int) Math.max(LANES_MIN, (bytesMax + usable - 1) / usable);
  }

  private static void requireRoom(TornadoDevice device, long bytesMax) {
    long has = device.getMaxGlobalMemory();
    if (total(bytesMax) > has) {
      throw new KvtierException(
          Code.EXHAUSTED,
          ("%d device bytes for sessions take %d with their scratch, and %s has %d; start the"
                  + " worker with fewer")
              .formatted(
                  bytesMax, total(bytesMax), device.getPhysicalDevice().getDeviceName(), has));
    }
  }

  /** Bytes of all buffers: the sessions', an eighth of slack, scores and what belongs to them. */
  private static long total(long bytesMax) {
    return bytesMax + bytesMax / 4 + LANES_MIN * (128L << 20);
  }

  /**
   * TornadoVM's runtime.
   *
   * @param bytesMax bytes for sessions, which TornadoVM must be told before it starts
   */
  private static TornadoRuntime runtime(long bytesMax) {
    if (bytesMax > 0 && System.getProperty(MEMORY) == null) {
      System.setProperty(MEMORY, (total(bytesMax) >> 20) + "MB");
    }
    try {
      return TornadoRuntimeProvider.getTornadoRuntime();
    } catch (RuntimeException | LinkageError e) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          ("TornadoVM does not start: %s; install a driver with OpenCL or CUDA, or see what its own"
                  + " 'tornado --devices' says")
              .formatted(e),
          e);
    }
  }
}
