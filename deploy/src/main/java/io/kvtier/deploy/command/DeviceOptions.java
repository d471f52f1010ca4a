package io.kvtier.deploy.command;

import io.kvtier.gpuworker.Devices;
import io.kvtier.gpuworker.GpuWorkerConfig;
import picocli.CommandLine.Option;

/** What a worker computes on. */
final class DeviceOptions {
  @Option(
      names = "--device",
      defaultValue = Devices.CPU,
      description =
          "cpu, or tornado[:driver:device] where the build has it; 'kvtier doctor' lists them"
              + " (default: ${DEFAULT-VALUE})")
  String device = Devices.CPU;

  GpuWorkerConfig applyTo(GpuWorkerConfig worker) {
    return worker.withDevice(device);
  }

  /** Tells on standard error what the opening of a device is at. */
  static void tell(String doing) {
    System.err.println("device: " + doing);
  }
}
