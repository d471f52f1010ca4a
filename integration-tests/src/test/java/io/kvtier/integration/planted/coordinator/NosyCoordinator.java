package io.kvtier.integration.planted.coordinator;

/** A coordinator that knows the tier. */
final class NosyCoordinator {
  private NosyCoordinator() {}

  static String peer() {
    return io.kvtier.cachetier.CacheTier.class.getName();
  }
}
