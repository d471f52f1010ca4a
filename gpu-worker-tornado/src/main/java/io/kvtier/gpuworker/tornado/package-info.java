/**
 * The GPU as a device, through TornadoVM: kernels, the plans that run them, what is resident. The
 * only package that knows TornadoVM.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.gpuworker.tornado;
