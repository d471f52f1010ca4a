package io.kvtier.gpuworker.session;

import com.google.protobuf.UnsafeByteOperations;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import java.util.UUID;
import org.agrona.DirectBuffer;

/** Sends the pages of one layer of a session to the tier, behind its back. */
final class TierSink implements DeviceLayer.PageSink {
  private final UUID session;
  private final int layer;
  private final LayerShape shape;
  private final WriteBehind writeBehind;

  TierSink(UUID session, int layer, LayerShape shape, WriteBehind writeBehind) {
    this.session = session;
    this.layer = layer;
    this.shape = shape;
    this.writeBehind = writeBehind;
  }

  @Override
  public PageKey key(int pageIndex) {
    return PageKey.ofSession(session, pageIndex, shape.fingerprint(), layer, shape.layout());
  }

  @Override
  public void accept(PageKey key, DirectBuffer page, int length) {
    byte[] copy = new byte[length];
    page.getBytes(0, copy);
    // The copy is ours alone and never written again.
    writeBehind.enqueue(layer, key, UnsafeByteOperations.unsafeWrap(copy));
  }
}
