/** The coordinator: its composition root and its configuration. */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator;
