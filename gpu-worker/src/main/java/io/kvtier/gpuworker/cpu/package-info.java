/** The cpu device: the kernels over off-heap memory, shared out over threads. */
@org.jspecify.annotations.NullMarked
package io.kvtier.gpuworker.cpu;
