/**
 * Pages of a tier on the same host, read from the files that it has mapped: who lies where, and how
 * a reader learns that it was right all the time.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.mapped;
