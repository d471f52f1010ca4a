package io.kvtier.client;

import org.agrona.DirectBuffer;

/** Looks at the bytes of a page, or of some of its sections, that have come from the tier. */
@FunctionalInterface
public interface PageConsumer {
  /**
   * Called on the thread that asked, in the order asked.
   *
   * @param bytes valid, and unchanged, until the call returns; verified
   * @param index of the key, or of the sections, in what was asked
   */
  void accept(DirectBuffer bytes, int offset, int length, int index);
}
