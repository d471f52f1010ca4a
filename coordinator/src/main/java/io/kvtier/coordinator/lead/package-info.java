/**
 * What the coordinator that leads does, whatever carries its calls: clocks, workers, stored
 * prefixes and the log are given to it. It holds locks, but starts no thread.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.lead;
