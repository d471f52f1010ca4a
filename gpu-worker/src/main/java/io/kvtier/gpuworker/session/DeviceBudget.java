package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.core.Demotion;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Residence;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import java.util.ArrayList;
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

  /**
   * Refuses a session that could not hold a single token under any plan, before its prompt is sent.
   *
   * @throws KvtierException EXHAUSTED
   */
  static void requireFixed(Session info) {
    // TailorKV's method keeps no codes.
    if (info.getDeviceBytesMax() == 0 || info.getMode() == PlanMode.PLAN_MODE_TAILORKV) {
      return;
    }
    long fixed = fixedBytes(info, Sessions.shapeOf(info), 1);
    if (info.getDeviceBytesMax() < fixed) {
      throw new KvtierException(
          Code.EXHAUSTED,
          ("device_bytes_max is %d and the exact rows and staged codes of any session of this"
                  + " geometry take %d; open the session with at least as many, or with 0 for the"
                  + " default share")
              .formatted(info.getDeviceBytesMax(), fixed));
    }
  }

  /** Exact rows, and the codes that one step of one layer may hold at most. */
  static long fixedBytes(Session info, LayerShape shape, int tokens) {
    return info.getGeometry().getLayers() * shape.exactRowBytes()
        + stagedBytes(info, shape, tokens);
  }

  private static long stagedBytes(Session info, LayerShape shape, int tokens) {
    return (long) LayerStep.stagingSlots(shape, tokens, info.getDeviceBytesMax())
        * LayerStep.stagingSlotBytes(shape);
  }

  long fixedBytes(int tokens) {
    return fixedBytes(info, shape, tokens);
  }

  private long stagedBytes(int tokens) {
    return stagedBytes(info, shape, tokens);
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

  /**
   * Policies under which restored layers, which hold nothing but sketches at most, fit: those of a
   * plan, demoted where the session has outgrown it. Layers give up in turn, one head each time.
   *
   * @param policies {@code [layers][kvHeads]}
   */
  List<List<HeadPolicy>> fitting(SessionLayer[] layers, List<List<HeadPolicy>> policies) {
    List<List<HeadPolicy>> fitted = new ArrayList<>(policies);
    int tokens = 0;
    long held = 0;
    long exact = 0;
    for (SessionLayer layer : layers) {
      if (!layer.device.placesHeads()) {
        return policies;
      }
      tokens = Math.max(tokens, layer.device.tokens());
      held += layer.device.residentBytes();
      exact += shape.exactRowBytes();
    }
    long max = info.getDeviceBytesMax() == 0 ? Long.MAX_VALUE : info.getDeviceBytesMax();
    long ofMemory = memory.bytesMax() - memory.bytesUsed() + held;
    long left = Math.min(max, ofMemory) - exact - stagedBytes(tokens);
    long need = 0;
    for (int layer = 0; layer < layers.length; layer++) {
      need += bytesOf(layers[layer], fitted.get(layer));
    }
    boolean demoting = true;
    while (need > left && demoting) {
      demoting = false;
      for (int layer = 0; layer < layers.length && need > left; layer++) {
        Optional<List<HeadPolicy>> demoted = Demotion.next(fitted.get(layer), tokens);
        if (demoted.isPresent()) {
          need -= bytesOf(layers[layer], fitted.get(layer)) - bytesOf(layers[layer], demoted.get());
          fitted.set(layer, demoted.get());
          demoting = true;
        }
      }
    }
    return fitted;
  }

  private long bytesOf(SessionLayer layer, List<HeadPolicy> policies) {
    long bytes = 0;
    for (HeadPolicy policy : policies) {
      bytes += (long) layer.device.pages() * policy.residence().deviceBytes(shape.layout());
    }
    return bytes;
  }

  /** Lowers the hot set to what the layers leave of the session's bytes. */
  void fitHotSet(SessionLayer[] layers) {
    if (info.getDeviceBytesMax() != 0 && layers[0].device.placesHeads()) {
      hotSet.shrink(Math.max(0, left(layers[0], 0)));
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
