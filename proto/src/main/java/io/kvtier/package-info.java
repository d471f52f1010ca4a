/** What every part of kvtier shares: its refusals. */
@org.jspecify.annotations.NullMarked
package io.kvtier;
