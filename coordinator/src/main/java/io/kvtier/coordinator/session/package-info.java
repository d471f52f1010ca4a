/**
 * The open sessions. Pure: ids and sessions come in as arguments, and values are the contract's
 * immutable messages, checked at the edge.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.session;
