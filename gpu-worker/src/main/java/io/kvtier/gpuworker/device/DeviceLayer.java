package io.kvtier.gpuworker.device;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import java.util.List;
import org.agrona.DirectBuffer;
import org.jspecify.annotations.Nullable;

/**
 * One layer's keys and values of one session, as far as they are on the device: sink and window
 * rows exactly, every page's sketch, the codes of dense heads. Written by one thread at a time and
 * not read meanwhile; the session's lock sees to that.
 */
public interface DeviceLayer {
  /** Takes pages that leave the window, to be stored. */
  interface PageSink {
    /** The key under which a sealed page, {@code pageIndex} of this layer, is stored. */
    PageKey key(int pageIndex, DirectBuffer page);

    /** Takes a sealed page; the buffer is used again after the call. */
    void accept(PageKey key, DirectBuffer page, int length);
  }

  /** Whether each head can be placed by itself; else the method places the layer as a whole. */
  default boolean placesHeads() {
    return true;
  }

  /** Tokens in all. */
  int tokens();

  /** Whole pages that have left the window; their tokens are 0 .. 64 x pages - 1. */
  int pages();

  /**
   * Appends tokens; pages that thereby leave the window are encoded and handed to the sink, and of
   * each head is kept what its residence says.
   *
   * @param keys {@code [tokens][kvHeads][headDim]}, read only
   * @param values same shape
   * @throws io.kvtier.KvtierException EXHAUSTED if device memory is full; nothing has been appended
   *     then
   */
  void append(float[] keys, float[] values, int tokens, PageSink sink);

  /**
   * The same, but that a page which is full with the last of the tokens may be left: then all that
   * it needs on the device is taken, its rows are in the window still, and {@link #pageOut} has to
   * come before anything else is done with the layer than asking for its tokens and bytes.
   *
   * @return whether a page is left
   */
  default boolean appendAhead(float[] keys, float[] values, int tokens, PageSink sink) {
    append(keys, values, tokens, sink);
    return false;
  }

  /** Encodes the page that {@link #appendAhead} has left, and hands it to the sink. */
  default void pageOut(PageSink sink) {
    throw new IllegalStateException("no page is left");
  }

  /**
   * Takes pages over that are stored already, as the first of an empty layer. Its heads hold
   * nothing of them then: they are {@link Residence#STREAMED}.
   *
   * @param pageKeys of the pages, in order
   * @param sinkKeys {@code [sinkTokens][kvHeads][headDim]}, the exact rows of the first tokens
   * @param sinkValues same shape
   */
  default void restore(List<PageKey> pageKeys, float[] sinkKeys, float[] sinkValues) {
    throw new UnsupportedOperationException("the layer does not page out");
  }

  /** Keys of all pages, in order. */
  List<PageKey> pageKeys();

  /** What of a head's pages is on the device; {@link Residence#TWO_PLANES} at first. */
  Residence residence(int kvHead);

  /**
   * Sketches of a head's pages, in order; empty where it is streamed. Valid until the next hold.
   */
  List<DeviceSlot> sketches(int kvHead);

  /** Resident codes of a head's pages, in order; empty unless it is dense. */
  List<DeviceSlot> codes(int kvHead);

  /**
   * Changes what of a head's pages is on the device; what it had before is let go. Passes made
   * before must not be used after.
   *
   * @param sketches one a page, of {@code residence.sketch()} laid end to end; none for a streamed
   *     head. Held by the layer from now on
   * @param codes one a page, of {@code residence.codes(layout)}, for a dense head; none for others
   * @throws io.kvtier.KvtierException EXHAUSTED if the device has no room; nothing has changed, and
   *     the slots stay the caller's
   */
  void hold(int kvHead, Residence residence, List<DeviceSlot> sketches, List<DeviceSlot> codes);

  /**
   * Attends queries to this layer; a pass is used again for many queries, by one thread.
   *
   * @param policies {@code [kvHeads]}, of the residences of now; a dense head may choose by its
   *     sketch as well
   */
  LayerPass newPass(List<HeadPolicy> policies);

  /**
   * Estimates, from one head's sketch, the shares of queries' attention that lie on tokens which
   * are not exact.
   *
   * @param kvHead a head that is not streamed
   * @param query {@code [qHeads][headDim]} from {@code at} on
   * @param position of the query: it sees tokens 0..position
   * @param masses {@code [group]}; cleared and filled
   */
  void profile(int kvHead, float[] query, int at, int position, MassHistogram[] masses);

  /**
   * The variance of the error of scores by one key plane, mean over the group and the tokens of
   * pages; 0 where there are none.
   *
   * @param kvHead a head that is not streamed
   * @param query {@code [qHeads][headDim]} from {@code at} on
   */
  default double scoreVariance(int kvHead, float[] query, int at) {
    throw new UnsupportedOperationException("the method has no key planes");
  }

  /**
   * Reads one head's row of one token.
   *
   * @param codes the head's codes of the token's page, held by the caller; ignored for an exact
   *     token
   * @param keys receives {@code [headDim]} from {@code at} on; {@code values} likewise
   */
  void readRow(
      int kvHead, int position, @Nullable DeviceSlot codes, float[] keys, float[] values, int at);

  /** Whether a token's row is exact: a sink, or in the window. */
  boolean isExact(int position);

  /** A layer that starts with the same tokens: shares the pages, copies the exact rows. */
  DeviceLayer fork();

  /** Bytes on the device. */
  long residentBytes();

  /** Bytes that the layer can grow by at most, where the device bounds its parts. */
  default long bytesLeft() {
    return Long.MAX_VALUE;
  }

  /** Lets go of everything. Returns the keys of the pages that no other layer shares. */
  List<PageKey> release();
}
