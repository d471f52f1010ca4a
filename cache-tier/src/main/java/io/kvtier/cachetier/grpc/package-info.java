/**
 * The Pages service on gRPC, and on the direct path beside it: wire messages to the core's types
 * and back, limits, flow control.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.cachetier.grpc;
