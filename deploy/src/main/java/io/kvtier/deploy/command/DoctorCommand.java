package io.kvtier.deploy.command;

import io.kvtier.KvtierException;
import io.kvtier.attention.Kernels;
import io.kvtier.gpuworker.Devices;
import io.kvtier.gpuworker.device.DeviceProvider;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;

/** Says which devices there are, which one a worker would take, and what to install for others. */
@Command(
    name = "doctor",
    description = {
      "Tells which devices this machine and build have, which one a worker would use and why, and",
      "what to install for others. Exit code 1 if the device asked for is not to be had."
    },
    mixinStandardHelpOptions = true)
public final class DoctorCommand implements Callable<Integer> {
  private static final long TRIAL_BYTES = 16 << 20;

  @Mixin private final DeviceOptions device = new DeviceOptions();

  @Override
  public Integer call() {
    System.out.printf("java      %s, %s%n", Runtime.version(), System.getProperty("java.vm.name"));
    System.out.printf(
        "cpu       %d processors, %s%n",
        Runtime.getRuntime().availableProcessors(), Kernels.best().description());
    List<DeviceProvider> providers = Devices.providers();
    for (DeviceProvider provider : providers) {
      tell(provider);
    }
    if (providers.isEmpty()) {
      System.out.printf(
          "tornado   not in this build: %s%n", missing(System.getenv("TORNADOVM_HOME")));
    }
    return choose();
  }

  private static void tell(DeviceProvider provider) {
    try {
      List<String> devices = provider.devices();
      devices.forEach(line -> System.out.printf("%-9s %s%n", provider.kind(), line));
      if (devices.isEmpty()) {
        System.out.printf(
            "%-9s sees no device; install a driver with OpenCL or CUDA%n", provider.kind());
      }
    } catch (KvtierException e) {
      System.out.printf("%-9s cannot be used: %s%n", provider.kind(), e.getMessage());
    }
  }

  /** What to do for a build with TornadoVM. */
  static String missing(@Nullable String home) {
    if (home == null || home.isBlank()) {
      return "TORNADOVM_HOME is not set. Install a TornadoVM SDK for JDK 25 (tornadovm.org) and a"
          + " driver with OpenCL or CUDA, set TORNADOVM_HOME to the SDK, and build again (mvn"
          + " package)";
    }
    if (!Files.isRegularFile(Path.of(home, "tornado-argfile"))) {
      return "TORNADOVM_HOME is %s, where there is no tornado-argfile: it is no TornadoVM SDK, or one"
              .formatted(home)
          + " whose argfile has not been made";
    }
    return "TORNADOVM_HOME is %s, but it was not set when this was built; build again (mvn package)"
        .formatted(home);
  }

  private int choose() {
    if (device.device.equals(Devices.CPU)) {
      System.out.println(
          "chosen    cpu, the default; it has no start-up time and needs nothing. --device takes"
              + " another");
      return 0;
    }
    try (var opened = Devices.open(device.device, TRIAL_BYTES, DeviceOptions::tell)) {
      System.out.printf("chosen    %s: it compiles and runs every kernel%n", opened.name());
      return 0;
    } catch (KvtierException e) {
      System.out.printf("chosen    none: %s%n", e.getMessage());
      return 1;
    }
  }
}
