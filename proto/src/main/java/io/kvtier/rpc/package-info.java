/**
 * What the gRPC endpoints of all services and clients have in common: listeners, limits, statuses,
 * tensors.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.rpc;
