package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.core.Demotion;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Residence;
import io.kvtier.v1.Session;
import java.util.List;
import java.util.Optional;
import java.util.function.LongSupplier;

/**
 * Keeps a session within its device bytes as it grows: first the hot set gives way, then the layer
 * that grows demotes its heads, and only a layer with nothing left to give up refuses tokens. The
 * caller holds the layer's lock.
 */
final class DeviceBudget {
  private final Session info;
  private final LayerShape shape;
  private final DeviceMemory memory;
  private final HotSet hotSet;
  private final PlanSwitch switcher;
  private final LongSupplier deviceBytes;

  /**
   * A session's budget.
   *
   * @param deviceBytes what the session holds on the device, the hot set included
   */
  DeviceBudget(
      Session info,
      LayerShape shape,
      DeviceMemory memory,
      HotSet hotSet,
      PlanSwitch switcher,
      LongSupplier deviceBytes) {
    this.info = info;
    this.shape = shape;
    this.memory = memory;
    this.hotSet = hotSet;
    this.switcher = switcher;
    this.deviceBytes = deviceBytes;
  }

  /** Exact rows, and the codes that one step of one layer may hold at most. */
  long fixedBytes(int tokens) {
    return info.getGeometry().getLayers() * shape.exactRowBytes() + stagedBytes(tokens);
  }

  private long stagedBytes(int tokens) {
    return (long) LayerStep.stagingSlots(shape, tokens, info.getDeviceBytesMax())
        * LayerStep.stagingSlotBytes(shape);
  }

  /** Lets heads hold nothing until there is a plan if all sketches might not fit. */
  void holdNoMoreThanFits(SessionLayer[] layers) {
    if (sketchesMayFit()) {
      return;
    }
    for (SessionLayer layer : layers) {
      for (int head = 0; layer.device.placesHeads() && head < shape.kvHeads(); head++) {
        layer.device.hold(head, Residence.STREAMED, List.of(), List.of());
      }
    }
  }

  /** Whether the sketches of the longest context would fit. */
  private boolean sketchesMayFit() {
    long max = info.getDeviceBytesMax();
    int tokens = info.getTokensMax();
    long sketches =
        (long) shape.pages(tokens)
            * info.getGeometry().getLayers()
            * shape.kvHeads()
            * Residence.TWO_PLANES.deviceBytes(shape.layout());
    return max == 0 || fixedBytes(tokens) + sketches <= max;
  }

  /**
   * Makes room for more pages of a layer.
   *
   * @throws KvtierException EXHAUSTED if there is none, and none can be made; nothing has changed
   *     but what heads hold
   */
  void requireRoom(SessionLayer target, int newPages) {
    if (newPages == 0 || !target.device.placesHeads()) {
      return;
    }
    long left = left(target, newPages);
    while (left < 0) {
      Optional<List<HeadPolicy>> demoted = Demotion.next(target.policies, target.device.tokens());
      if (demoted.isEmpty()) {
        throw new KvtierException(
            Code.EXHAUSTED,
            ("device_bytes_max is %d and %d more pages of a layer take %d beyond it; open the"
                    + " session with more")
                .formatted(info.getDeviceBytesMax(), newPages, -left));
      }
      switcher.apply(new SessionLayer[] {target}, List.of(demoted.get()));
      left = left(target, newPages);
    }
    if (info.getDeviceBytesMax() != 0) {
      hotSet.shrink(left);
    }
  }

  /** Bytes left once the pages are there and the hot set is not. */
  private long left(SessionLayer target, int newPages) {
    long need = 0;
    for (int head = 0; head < shape.kvHeads(); head++) {
      need += (long) newPages * target.device.residence(head).deviceBytes(shape.layout());
    }
    long max = info.getDeviceBytesMax();
    long ofMemory = memory.bytesMax() - memory.bytesUsed() + hotSet.slotBytes();
    long ofDevice = Math.min(ofMemory, target.device.bytesLeft()) - need;
    if (max == 0) {
      return target.policies.isEmpty() ? Long.MAX_VALUE : ofDevice;
    }
    long staged = target.policies.isEmpty() ? 0 : stagedBytes(target.device.tokens());
    long ofSession = max - (deviceBytes.getAsLong() - hotSet.bytes()) - need - staged;
    return Math.min(ofSession, ofDevice);
  }
}
