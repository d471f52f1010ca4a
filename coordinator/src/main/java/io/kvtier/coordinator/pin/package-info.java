/** Which prompts' pages are kept from eviction. Pure: times come in as arguments. */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.pin;
