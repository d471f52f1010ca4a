/** What a device offers to a session: memory, layers, passes. */
@org.jspecify.annotations.NullMarked
package io.kvtier.gpuworker.device;
