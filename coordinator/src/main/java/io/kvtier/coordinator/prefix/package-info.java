/** Which prompts' pages are stored: soft state, told by the tiers, lost and rebuilt at will. */
@org.jspecify.annotations.NullMarked
package io.kvtier.coordinator.prefix;
