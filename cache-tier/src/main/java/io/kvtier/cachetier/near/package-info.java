/** Attention where the pages are: scores and partials over stored pages, on threads of its own. */
@org.jspecify.annotations.NullMarked
package io.kvtier.cachetier.near;
