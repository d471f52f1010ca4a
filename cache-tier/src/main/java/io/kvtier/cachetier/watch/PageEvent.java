package io.kvtier.cachetier.watch;

import io.kvtier.page.PageKey;

/**
 * A page that can be served from now on, or no longer.
 *
 * @param sequence one more than that of the event before
 * @param stored whether it was stored; otherwise it was removed
 */
public record PageEvent(long sequence, PageKey key, boolean stored) {}
