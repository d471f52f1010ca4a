package io.kvtier.coordinator.profile;

import io.kvtier.v1.Geometry;
import io.kvtier.v1.PlanMode;

/**
 * What a profile is of: a model's weights, in one shape, under one method, whose scores the curves
 * are measured with.
 *
 * @param geometry without the dtype of its keys and values, which changes no curve
 */
public record ModelKey(Geometry geometry, PlanMode mode) {
  /** The key of sessions of this geometry and method. */
  public static ModelKey of(Geometry geometry, PlanMode mode) {
    return new ModelKey(geometry.toBuilder().clearKvDtype().clearCodeBits().build(), mode);
  }
}
