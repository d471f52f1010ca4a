/**
 * Plans: what stays on the device. Pure functions from profiles and budgets to plans, and the
 * limits of what comes in by hand.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.plan;
