/** The cpu device: scalar kernels over off-heap memory. */
@org.jspecify.annotations.NullMarked
package io.kvtier.gpuworker.cpu;
