/** The log of commands on Apache Ratis; nothing else knows it. */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.raft;
