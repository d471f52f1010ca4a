/** A record of every step of every layer, for people and their tools. */
@org.jspecify.annotations.NullMarked
package io.kvtier.gpuworker.trace;
