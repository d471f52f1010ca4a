/**
 * What sessions have shown of each model's heads, kept for the sessions that come. Pure: no clock,
 * no lock; the owner serializes all calls.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.profile;
