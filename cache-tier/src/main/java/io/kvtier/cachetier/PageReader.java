package io.kvtier.cachetier;

import org.agrona.DirectBuffer;

/**
 * Looks at a stored page in place.
 *
 * @param <R> what it makes of the page; never null
 */
@FunctionalInterface
public interface PageReader<R> {
  /**
   * Called under the entry's lock, on the thread that asked: be brief, block on nothing, and do not
   * call the store.
   *
   * @param page aliases the store's memory; neither it nor an address taken from it may be used
   *     after the call
   */
  R read(DirectBuffer page, int offset, int length);
}
