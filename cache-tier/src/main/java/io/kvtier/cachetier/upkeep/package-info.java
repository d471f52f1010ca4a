/** The threads and the clock of what a tier does by itself. */
@org.jspecify.annotations.NullMarked
package io.kvtier.cachetier.upkeep;
