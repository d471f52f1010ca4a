package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.precondition;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PrefixChain;
import io.kvtier.v1.Session;
import java.util.UUID;

/**
 * How the layers of a session grow: in order, within the session's bounds, all or nothing. The
 * caller holds the layer's lock.
 */
final class LayerGrowth {
  private static final int ATTEMPTS_MAX = 100;

  private final UUID id;
  private final Session info;
  private final LayerShape shape;

  /** Names of the pages of its prompt that it shares. */
  private final PrefixChain chain;

  private final WriteBehind writeBehind;
  private final DeviceBudget budget;
  private final TailorMemory tailor;

  LayerGrowth(
      UUID id,
      Session info,
      LayerShape shape,
      PrefixChain chain,
      WriteBehind writeBehind,
      DeviceBudget budget,
      TailorMemory tailor) {
    this.id = id;
    this.info = info;
    this.shape = shape;
    this.chain = chain;
    this.writeBehind = writeBehind;
    this.budget = budget;
    this.tailor = tailor;
  }

  /**
   * Requires that tokens come next and stay within the session's bound.
   *
   * @param have tokens that come before them
   */
  void requireNext(int layer, int have, int position, int tokens) {
    if (position != have) {
      throw precondition(
          "position %s of layer %d is out of order: the layer has %d tokens, so %d comes next",
          Integer.toUnsignedString(position), layer, have, have);
    }
    if ((long) position + tokens > info.getTokensMax()) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "%d tokens at position %d go beyond tokens_max, %d; open a session with more"
              .formatted(tokens, position, info.getTokensMax()));
    }
  }

  /**
   * Refuses tokens whose pages could not be kept, before anything else changes.
   *
   * @return room for the pages to wait in, to be closed once the tokens are appended or are not
   */
  WriteBehind.Room requireRoom(SessionLayer target, int tokens) {
    // A method that places whole layers keeps their tokens itself.
    int newPages =
        target.device.placesHeads()
            ? shape.pages(target.device.tokens() + tokens) - target.device.pages()
            : 0;
    boolean first = newPages > 0 && target.device.pages() == 0;
    WriteBehind.Room room = writeBehind.requireRoom(TierSink.bytes(shape, newPages, first));
    try {
      budget.requireRoom(target, newPages);
      tailor.requireRoom(target, tokens);
      return room;
    } catch (RuntimeException e) {
      room.close();
      throw e;
    }
  }

  /** Takes what of a layer is to be stored. */
  TierSink sink(SessionLayer target, int layer) {
    return new TierSink(id, chain, layer, target, shape, writeBehind);
  }

  /** Appends tokens; there must be room for them. */
  void append(SessionLayer target, int layer, int tokens, float[] keys, float[] values) {
    appendAhead(target, layer, tokens, keys, values);
    target.takeLeft();
  }

  /** The same, but that a page which fills with the last token may be left with the layer. */
  void appendAhead(SessionLayer target, int layer, int tokens, float[] keys, float[] values) {
    int pages = target.device.pages();
    TierSink sink = sink(target, layer);
    if (appendAhead(target, tokens, keys, values, sink)) {
      target.leavePage(sink);
    }
    if (pages == 0 && target.device.pages() > 0) {
      sink.acceptSinks(target.device);
    }
  }

  /** What others have taken of the room since it was made is made again. */
  private boolean appendAhead(
      SessionLayer target, int tokens, float[] keys, float[] values, TierSink sink) {
    int before = target.device.tokens();
    for (int attempt = 1; ; attempt++) {
      try {
        return target.device.appendAhead(keys, values, tokens, sink);
      } catch (KvtierException e) {
        boolean changed = target.device.tokens() != before;
        if (e.code() != Code.EXHAUSTED || changed || attempt == ATTEMPTS_MAX) {
          throw e;
        }
        budget.requireRoom(
            target, shape.pages(target.device.tokens() + tokens) - target.device.pages());
      }
    }
  }
}
