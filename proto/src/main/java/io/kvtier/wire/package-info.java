/**
 * The messages of the Pages service that carry page bytes, read and written without generated
 * classes in between. On the wire they are those of {@code kvtier/v1/pages.proto}.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.wire;
