package io.kvtier.integration.planted;

/** Marks the packages below: each holds one violation that a fence must see. */
public final class PlantedViolations {
  private PlantedViolations() {}
}
