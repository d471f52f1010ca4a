package io.kvtier.integration.planted.pure;

import io.grpc.Status;
import net.openhft.chronicle.map.ChronicleMap;

/** A pure class that knows gRPC and Chronicle and reads the clock. */
final class ImpureCore {
  private ImpureCore() {}

  static String now() {
    return Status.OK.toString() + System.nanoTime() + ChronicleMap.class.getName();
  }
}
