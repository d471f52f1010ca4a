/**
 * What all coordinators agree on: a deterministic state machine of commands. Pure: a command says
 * all that it depends on, the time included.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.state;
