package io.kvtier.gpuworker.session;

import com.google.protobuf.UnsafeByteOperations;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.page.Pages;
import io.kvtier.page.PrefixChain;
import java.util.UUID;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Sends the pages of one layer of a session to the tier, behind its back, and its sink rows, so
 * that another worker can go on with it. Pages of a shared prompt are named by their tokens and
 * bytes, others by the session.
 */
final class TierSink implements DeviceLayer.PageSink {
  private final UUID session;
  private final PrefixChain chain;
  private final int layer;
  private final SessionLayer target;
  private final LayerShape shape;
  private final WriteBehind writeBehind;

  TierSink(
      UUID session,
      PrefixChain chain,
      int layer,
      SessionLayer target,
      LayerShape shape,
      WriteBehind writeBehind) {
    this.session = session;
    this.chain = chain;
    this.layer = layer;
    this.target = target;
    this.shape = shape;
    this.writeBehind = writeBehind;
  }

  /** Bytes of so many pages, with the layer's first one those of its sink rows too. */
  static long bytes(LayerShape shape, int pages, boolean first) {
    long sinks = first ? new SinkPage(shape).layout().pageLength() : 0;
    return (long) pages * shape.layout().pageLength() + sinks;
  }

  @Override
  public PageKey key(int pageIndex, DirectBuffer page) {
    int checksum = Pages.headerChecksum(page, 0);
    if (pageIndex < chain.pages()) {
      return PageKey.ofPrefix(
          chain, pageIndex, checksum, shape.fingerprint(), layer, shape.layout());
    }
    target.made(pageIndex, checksum);
    return PageKey.ofSession(session, pageIndex, shape.fingerprint(), layer, shape.layout());
  }

  /** Encodes the page that the layer has left, and sends it. */
  void pageOut() {
    boolean first = target.device.pages() == 0;
    target.device.pageOut(this);
    if (first) {
      acceptSinks(target.device);
    }
  }

  /** Sends the sink rows, once the first page is out. */
  void acceptSinks(DeviceLayer device) {
    SinkPage sinks = new SinkPage(shape);
    UnsafeBuffer page = sinks.write(layer, device);
    PageKey key =
        chain.pages() > 0
            ? PageKey.ofPrefix(
                chain, 0, Pages.headerChecksum(page, 0), shape.fingerprint(), layer, sinks.layout())
            : PageKey.ofSession(session, 0, shape.fingerprint(), layer, sinks.layout());
    writeBehind.enqueueAside(layer, key, UnsafeByteOperations.unsafeWrap(page.byteArray()));
  }

  @Override
  public void accept(PageKey key, DirectBuffer page, int length) {
    byte[] copy = new byte[length];
    page.getBytes(0, copy);
    // The copy is ours alone and never written again.
    writeBehind.enqueue(layer, key, UnsafeByteOperations.unsafeWrap(copy));
  }
}
