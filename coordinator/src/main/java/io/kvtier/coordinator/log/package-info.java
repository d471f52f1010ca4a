/** How coordinators agree on what they do: the log of commands, and who may write it. */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.log;
