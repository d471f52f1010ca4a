package io.kvtier.gpuworker.device;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.page.PageKey;
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
    /** The key under which page {@code pageIndex} of this layer is stored. */
    PageKey key(int pageIndex);

    /** Takes a sealed page; the buffer is used again after the call. */
    void accept(PageKey key, DirectBuffer page, int length);
  }

  /** Tokens in all. */
  int tokens();

  /** Whole pages that have left the window; their tokens are 0 .. 64 x pages - 1. */
  int pages();

  /**
   * Appends tokens; pages that thereby leave the window are encoded and handed to the sink, and the
   * codes of dense heads are kept.
   *
   * @param keys {@code [tokens][kvHeads][headDim]}, read only
   * @param values same shape
   * @param policies {@code [kvHeads]}; tells which heads are dense. Empty: none yet
   * @throws io.kvtier.KvtierException EXHAUSTED if device memory is full; nothing has been appended
   *     then
   */
  void append(float[] keys, float[] values, int tokens, List<HeadPolicy> policies, PageSink sink);

  /** Keys of all pages, in order. */
  List<PageKey> pageKeys();

  /** Pages whose codes a dense head has on the device: the first so many. */
  int codesHeld(int kvHead);

  /**
   * Gives a head the codes of its next page.
   *
   * @param codes held by the layer from now on
   */
  void addCodes(int kvHead, DeviceSlot codes);

  /** Lets go of the codes of a head that is dense no more. */
  void releaseCodes(int kvHead);

  /** Attends queries to this layer; a pass is used again for many queries, by one thread. */
  LayerPass newPass(List<HeadPolicy> policies);

  /**
   * Estimates, from the sketch, the shares of a query's attention that lie on tokens which are not
   * exact.
   *
   * @param query {@code [qHeads][headDim]} from {@code at} on
   * @param position of the query: it sees tokens 0..position
   * @param masses {@code [qHeads]}; cleared and filled
   */
  void profile(float[] query, int at, int position, MassHistogram[] masses);

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

  /** Lets go of everything. Returns the keys of the pages that no other layer shares. */
  List<PageKey> release();
}
