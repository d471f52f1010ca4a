package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.core.Demotion;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Residence;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;

/**
 * Keeps a session within its device bytes as it grows, and within what the device has: first hot
 * sets give way, then the layer that grows demotes its heads, and only a layer with nothing left to
 * give up refuses tokens. What changes a layer is called by who holds its lock; the rest by any
 * thread.
 */
final class DeviceBudget {
  /** Of the full KV at 16 bits, what a session without a bound of its own is planned for. */
  private static final int DEFAULT_SHARE = 4;

  private final Session info;
  private final LayerShape shape;
  private final DeviceMemory memory;
  private final DevicePool pool;
  private final SessionLayer[] layers;
  private final Staging staging;
  private final HotSet hotSet;
  private final PlanSwitch switcher;
  private final Consumer<Runnable> whileOpen;
  private volatile boolean planned;

  /**
   * A session's budget.
   *
   * @param whileOpen runs something unless the session is closed
   */
  DeviceBudget(
      Session info,
      LayerShape shape,
      DeviceMemory memory,
      DevicePool pool,
      SessionLayer[] layers,
      Staging staging,
      HotSet hotSet,
      PlanSwitch switcher,
      Consumer<Runnable> whileOpen) {
    this.info = info;
    this.shape = shape;
    this.memory = memory;
    this.pool = pool;
    this.layers = layers;
    this.staging = staging;
    this.hotSet = hotSet;
    this.switcher = switcher;
    this.whileOpen = whileOpen;
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
        + LayerStep.stagedBytes(shape, tokens, info.getDeviceBytesMax());
  }

  // ---- beside others

  /** Shares the device from now on. */
  void join() {
    pool.join(this);
  }

  /** Holds nothing any more. */
  void leave() {
    pool.leave(this);
  }

  HotSet hotSet() {
    return hotSet;
  }

  /** Bytes that are the session's own: all but its hot set. */
  long ownBytes() {
    return residentBytes() + staging.leastBytes();
  }

  /**
   * Demotes heads of layers that are not busy while the session holds more than a share of its own.
   * A method that places whole layers demotes nothing.
   *
   * @param enough whether it may end
   */
  void giveUpBeyond(long share, BooleanSupplier enough) {
    if (!placesHeads()) {
      return;
    }
    whileOpen.accept(() -> {
      boolean gave = true;
      while (gave) {
        gave = false;
        for (SessionLayer layer : layers) {
          if (ownBytes() <= share || enough.getAsBoolean()) {
            return;
          }
          if (layer.tryEnter()) {
            try {
              gave |= giveUp(layer);
            } finally {
              layer.leave();
            }
          }
        }
      }
    });
  }

  /** Bytes beyond those that the session is still to get, of a share of the device at most. */
  long wantedBeyondOwn(long share) {
    long own = ownBytes();
    long wanted = planned ? own + hotSet.bytesMax() : wantedBytes();
    return Math.max(0, Math.min(share, wanted) - own);
  }

  private long wantedBytes() {
    if (info.getDeviceBytesMax() != 0) {
      return info.getDeviceBytesMax();
    }
    int tokens = info.getTokensMax();
    long full = (long) tokens * layers.length * shape.rowLength() * 2 * Short.BYTES;
    return Math.max(full / DEFAULT_SHARE, fixedBytes(info, shape, tokens) + sketchBytes(tokens));
  }

  private boolean placesHeads() {
    return layers[0].device.placesHeads();
  }

  private long residentBytes() {
    long bytes = 0;
    for (SessionLayer layer : layers) {
      bytes += layer.device.residentBytes();
    }
    return bytes;
  }

  // ---- before the plan

  /** Has others give way up to the session's share of the device. */
  void makeRoomForPlan() {
    if (placesHeads()) {
      pool.makeRoomForPlan(this);
    }
  }

  /** Bytes that a plan may spend: the session's, and no more than the device has for it. */
  long planBytes() {
    if (!placesHeads()) {
      return bound();
    }
    long least = layers.length * shape.exactRowBytes() + staging.leastBytes();
    return Math.max(least, Math.min(bound(), pool.planBytes(this)));
  }

  /** The session's own bound; without one, the largest number. */
  private long bound() {
    return info.getDeviceBytesMax() == 0 ? Long.MAX_VALUE : info.getDeviceBytesMax();
  }

  /** What any plan of so many bytes takes. */
  long fixedBytes(int tokens, long planBytes) {
    return layers.length * shape.exactRowBytes() + LayerStep.stagedBytes(shape, tokens, planBytes);
  }

  /** Lets heads hold nothing until there is a plan if all sketches might not fit. */
  void holdNoMoreThanFits() {
    if (!placesHeads() || sketchesMayFit()) {
      return;
    }
    for (SessionLayer layer : layers) {
      for (int head = 0; head < shape.kvHeads(); head++) {
        layer.device.hold(head, Residence.STREAMED, List.of(), List.of());
      }
    }
  }

  /** Whether the sketches of the longest context would fit. */
  private boolean sketchesMayFit() {
    long most = planBytes();
    int tokens = info.getTokensMax();
    return fixedBytes(tokens, most) + sketchBytes(tokens) <= most;
  }

  private long sketchBytes(int tokens) {
    return (long) shape.pages(tokens)
        * layers.length
        * shape.kvHeads()
        * Residence.TWO_PLANES.deviceBytes(shape.layout());
  }

  /** Has hot sets give way for sketches of so many heads' pages; whether there is room for them. */
  boolean makeRoomForSketches(int pages, int heads) {
    long bytes = (long) heads * pages * Residence.TWO_PLANES.deviceBytes(shape.layout());
    pool.makeRoom(bytes);
    return bytes <= memory.bytesFree();
  }

  // ---- growth

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
    while (!makeRoom(target, newPages)) {
      if (!giveUp(target)) {
        throw new KvtierException(
            Code.EXHAUSTED,
            ("device_bytes_max is %d and %d more pages of a layer take %d beyond it; open the"
                    + " session with more")
                .formatted(info.getDeviceBytesMax(), newPages, -leftOfSession(target, newPages)));
      }
    }
  }

  /** Has hot sets give way to more pages; whether that is enough. */
  private boolean makeRoom(SessionLayer target, int newPages) {
    long left = leftOfSession(target, newPages);
    long needed = bytesOf(target, newPages);
    if (left < 0 || target.device.bytesLeft() < needed) {
      return false;
    }
    if (info.getDeviceBytesMax() != 0) {
      hotSet.shrink(left);
    }
    pool.makeRoom(needed);
    if (memory.bytesFree() < needed) {
      // Others' steps are under way, and give back at their end: this layer's rows can go now.
      target.rows.reset(target.rows.rowBytes());
    }
    return memory.bytesFree() >= needed;
  }

  /** Bytes of the session's own that are left once the pages are there and the hot set is not. */
  private long leftOfSession(SessionLayer target, int newPages) {
    long max = info.getDeviceBytesMax();
    if (max == 0) {
      return Long.MAX_VALUE;
    }
    long staged =
        target.policies.isEmpty() ? 0 : LayerStep.stagedBytes(shape, target.device.tokens(), max);
    return max - residentBytes() - staged - bytesOf(target, newPages);
  }

  private long bytesOf(SessionLayer target, int pages) {
    long bytes = 0;
    for (int head = 0; head < shape.kvHeads(); head++) {
      bytes += (long) pages * target.device.residence(head).deviceBytes(shape.layout());
    }
    return bytes;
  }

  /** Demotes one head of a layer; whether there was one. */
  private boolean giveUp(SessionLayer target) {
    if (target.policies.isEmpty()) {
      return stream(target);
    }
    List<HeadPolicy> before = target.policies;
    Optional<List<HeadPolicy>> demoted = Demotion.next(before, target.device.tokens());
    demoted.ifPresent(policies -> apply(new SessionLayer[] {target}, List.of(policies)));
    pool.demoted(EffectivePlan.demoted(before, target.policies));
    return demoted.isPresent();
  }

  /** Before the plan nothing is lost by it: the plan has fetched what it keeps. */
  private boolean stream(SessionLayer target) {
    for (int head = shape.kvHeads() - 1; head >= 0; head--) {
      if (target.device.residence(head) != Residence.STREAMED) {
        target.device.hold(head, Residence.STREAMED, List.of(), List.of());
        return true;
      }
    }
    return false;
  }

  // ---- plans

  /**
   * Brings layers under policies, those demoted for which there is no room. The caller holds all
   * the layers' locks.
   */
  void adopt(List<List<HeadPolicy>> policies) {
    apply(layers, policies);
    planned = true;
  }

  private void apply(SessionLayer[] changed, List<List<HeadPolicy>> policies) {
    pool.makeRoom(switcher.bytesPrepared(changed, policies));
    long left = bound() - residentBytes() - hotSet.bytes();
    switcher.apply(changed, policies, Math.min(left, memory.bytesFree()));
  }

  /**
   * Policies under which the layers fit: those of a plan, demoted where the session has outgrown
   * it. Layers give up in turn, one head each time.
   *
   * @param policies {@code [layers][kvHeads]}
   */
  List<List<HeadPolicy>> fitting(List<List<HeadPolicy>> policies) {
    if (!placesHeads()) {
      return policies;
    }
    List<List<HeadPolicy>> fitted = new ArrayList<>(policies);
    int tokens = 0;
    long need = 0;
    for (int layer = 0; layer < layers.length; layer++) {
      tokens = Math.max(tokens, layers[layer].device.tokens());
      need += bytesOf(layers[layer], fitted.get(layer));
    }
    long most = Math.min(bound(), ownBytes() + pool.reclaimable());
    long left = most - fixedBytes(tokens, most);
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

  /** A plan as its heads hold it now, each demotion counted. */
  Plan effective(Plan plan, List<List<HeadPolicy>> policies) {
    List<List<HeadPolicy>> held = new ArrayList<>();
    int demoted = 0;
    for (int layer = 0; layer < layers.length; layer++) {
      held.add(layers[layer].policies);
      demoted += EffectivePlan.demoted(policies.get(layer), layers[layer].policies);
    }
    if (demoted == 0) {
      return plan;
    }
    pool.demoted(demoted);
    int tokens = layers[0].device.tokens();
    long others = fixedBytes(tokens, bound());
    Plan sized = plan.toBuilder().setHotSetBytes(hotSet.bytesMax()).build();
    return EffectivePlan.of(
        sized, policies, held, shape.layout(), layers[0].device.pages(), others);
  }

  /** Has the hot set grow to so many bytes, and no further than layers leave of the session's. */
  void sizeHotSet(long bytes) {
    long left = placesHeads() ? Math.max(0, leftOfSession(layers[0], 0)) : Long.MAX_VALUE;
    hotSet.resize(Math.min(bytes, left));
    pool.level(0);
  }
}
