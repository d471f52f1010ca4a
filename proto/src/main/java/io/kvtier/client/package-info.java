/** The Java client. */
@org.jspecify.annotations.NullMarked
package io.kvtier.client;
