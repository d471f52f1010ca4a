/** What has been stored and removed, in order. Pure. */
@org.jspecify.annotations.NullMarked
package io.kvtier.cachetier.watch;
