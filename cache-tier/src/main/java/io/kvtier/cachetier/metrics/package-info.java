/**
 * The cache tier's meters. The only package that knows Micrometer, apart from the composition root.
 */
@org.jspecify.annotations.NullMarked
package io.kvtier.cachetier.metrics;
