/**
 * The GPU worker: keeps dominant state on the device and attends to it; the rest is in the cache
 * tier.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.gpuworker;
