/** Traces of decode steps, read back: as a table and as a picture. */
@org.jspecify.annotations.NullMarked
package io.kvtier.deploy.trace;
