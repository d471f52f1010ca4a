/** The coordinator on the wire: its two services and its calls to workers. */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.grpc;
