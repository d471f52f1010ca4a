package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.page.PageKey;
import io.kvtier.v1.Miss;
import io.kvtier.wire.FrameChannel.PagePlaces;
import io.kvtier.wire.PageMessages.Answer;
import io.kvtier.wire.PageMessages.PageHead;
import java.nio.ByteBuffer;
import java.util.List;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/** The caller's memory that pages are read into: page i at i times the stride. */
final class PlacedPages implements PageConsumer {
  private static final int[] NONE = {};

  private final List<PageKey> keys;
  private final ByteBuffer target;
  private final UnsafeBuffer view;
  private final int stride;

  /** The page that was received here last. */
  private int placed = -1;

  PlacedPages(List<PageKey> keys, ByteBuffer target, int stride) {
    KvtierException.requireInRange(
        "stride", stride, 1, keys.isEmpty() ? Integer.MAX_VALUE : target.capacity() / keys.size());
    this.keys = keys;
    this.target = target.duplicate().clear();
    this.view = new UnsafeBuffer(target, 0, target.capacity());
    this.stride = stride;
  }

  /** Where pages of a batch are to be received, which begins at page {@code from}. */
  PagePlaces places(int from, int size) {
    return (index, length) ->
        index < 0 || index >= size || length < 1 || length > stride
            ? null
            : target.slice((from + index) * stride, length);
  }

  /** A page that has been received here. */
  Answer answer(PageHead page, int from) {
    placed = from + page.index();
    return new Answer(
        page.index(), Miss.MISS_NONE, view, placed * stride, page.length(), NONE, NONE);
  }

  /** Copies a page that came another way. */
  @Override
  public void accept(DirectBuffer bytes, int offset, int length, int index) {
    if (length > stride) {
      throw KvtierException.invalid(
          "page %s has %d bytes; the stride is %d", keys.get(index), length, stride);
    }
    if (index != placed) {
      view.putBytes(index * stride, bytes, offset, length);
    }
  }
}
