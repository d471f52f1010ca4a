package io.kvtier.cachetier;

import static io.kvtier.KvtierException.requireInRange;

/**
 * The ways to a tier's pages beside gRPC.
 *
 * @param path whether there is a direct path
 * @param port its TCP port, 0..65535; 0: the system chooses
 * @param files whether callers on this host are told which files the pages are in
 */
public record DirectConfig(boolean path, int port, boolean files) {
  public DirectConfig {
    requireInRange("port of the direct path", port, 0, 65_535);
  }

  /** All of them, on a port that the system chooses. */
  public static DirectConfig defaults() {
    return new DirectConfig(true, 0, true);
  }
}
