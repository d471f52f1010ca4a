/** The algorithms: choice of tokens, sensitivity. No clock, thread, logger or I/O. */
@org.jspecify.annotations.NullMarked
package io.kvtier.gpuworker.core;
