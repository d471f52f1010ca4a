/** The coordinator's meters. */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.metrics;
