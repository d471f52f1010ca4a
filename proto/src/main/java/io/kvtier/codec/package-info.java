/**
 * The codecs: plain loops, which are the specification, and vector kernels that give the same bits.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.codec;
