/** The codecs: scalar reference versions, which are the specification. */
@org.jspecify.annotations.NullMarked
package io.kvtier.codec;
