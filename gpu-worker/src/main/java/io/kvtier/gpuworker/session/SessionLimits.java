package io.kvtier.gpuworker.session;

/**
 * Bounds of a session's waiting.
 *
 * @param pendingBytesMax bytes of pages that may wait to be stored
 * @param tierTimeoutNs longest wait for the tier, in nanoseconds
 */
public record SessionLimits(long pendingBytesMax, long tierTimeoutNs) {}
