/** Attention arithmetic: partials, their merge, and the scalar reference that is the oracle. */
@org.jspecify.annotations.NullMarked
package io.kvtier.attention;
