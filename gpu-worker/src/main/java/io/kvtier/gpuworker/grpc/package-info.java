/** The Attention service. */
@org.jspecify.annotations.NullMarked
package io.kvtier.gpuworker.grpc;
