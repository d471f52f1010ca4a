package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.session.CodesFetcher.PageHead;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.Section;
import io.kvtier.rpc.PlanLimits;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.agrona.MutableDirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Brings layers under other policies. Where there is room for what heads will hold beside what they
 * hold, it is all of it or nothing: whatever can fail (a plan that is none, a tier that does not
 * answer, full memory) fails before the first head changes. Where there is not, heads change one
 * after the other, those first that give back most, and a head lets go first of what it has if it
 * must. The caller holds the locks of the layers.
 */
final class PlanSwitch {
  /** A head that is to hold something else. */
  private record Change(SessionLayer layer, int kvHead, Residence to) {
    Residence from() {
      return layer.device.residence(kvHead);
    }

    /** Lets go of all that the head has. */
    void letGo() {
      layer.device.hold(kvHead, Residence.STREAMED, List.of(), List.of());
    }
  }

  /** What a head will hold. */
  private record Holding(Change change, List<DeviceSlot> sketches, List<DeviceSlot> codes) {
    void take() {
      change.layer.device.hold(change.kvHead, change.to, sketches, codes);
    }

    void release() {
      sketches.forEach(DeviceSlot::release);
      codes.forEach(DeviceSlot::release);
    }
  }

  private final LayerShape shape;
  private final DeviceMemory memory;
  private final CodesFetcher fetcher;

  PlanSwitch(LayerShape shape, DeviceMemory memory, CodesFetcher fetcher) {
    this.shape = shape;
    this.memory = memory;
    this.fetcher = fetcher;
  }

  /**
   * The plan's policies.
   *
   * @return {@code [layers][kvHeads]}
   * @throws io.kvtier.KvtierException INVALID if the plan does not fit the session's geometry or
   *     method, or breaks a bound
   */
  static List<List<HeadPolicy>> policiesOf(Plan plan, Session info) {
    Geometry geometry = info.getGeometry();
    PlanLimits.check(plan, geometry, info.getMode());
    List<List<HeadPolicy>> policies = new ArrayList<>();
    for (int layer = 0; layer < geometry.getLayers(); layer++) {
      policies.add(Sessions.policiesOf(plan, geometry, layer));
    }
    return policies;
  }

  /**
   * Gets what heads will hold and have not, and switches all layers.
   *
   * @param bytesLeft that may be held more than now, at any time
   * @throws KvtierException if the tier refuses; policies are as before then, but of heads that
   *     have changed already
   */
  void apply(SessionLayer[] layers, List<List<HeadPolicy>> policies, long bytesLeft) {
    List<Change> changes = changes(layers, policies);
    try {
      if (bytesPrepared(changes) > bytesLeft || !changeAtOnce(changes)) {
        changeInTurn(changes, bytesLeft);
      }
    } catch (RuntimeException e) {
      for (int layer = 0; layer < layers.length; layer++) {
        if (!layers[layer].policies.isEmpty()) {
          setPolicies(layers[layer], policies.get(layer));
        }
      }
      throw e;
    }
    for (int layer = 0; layer < layers.length; layer++) {
      setPolicies(layers[layer], policies.get(layer));
    }
  }

  /** Bytes that are held beside what heads hold, if all change at once. */
  long bytesPrepared(SessionLayer[] layers, List<List<HeadPolicy>> policies) {
    return bytesPrepared(changes(layers, policies));
  }

  private long bytesPrepared(List<Change> changes) {
    return changes.stream().mapToLong(this::bytesPrepared).sum();
  }

  private static List<Change> changes(SessionLayer[] layers, List<List<HeadPolicy>> policies) {
    List<Change> changes = new ArrayList<>();
    for (int layer = 0; layer < layers.length; layer++) {
      boolean places = layers[layer].device.placesHeads();
      for (int head = 0; places && head < policies.get(layer).size(); head++) {
        Residence residence = policies.get(layer).get(head).residence();
        if (residence != layers[layer].device.residence(head)) {
          changes.add(new Change(layers[layer], head, residence));
        }
      }
    }
    return changes;
  }

  /** Gets what all need, then changes all; false: the device has not as much memory. */
  private boolean changeAtOnce(List<Change> changes) {
    List<Holding> holdings = new ArrayList<>();
    int taken = 0;
    try {
      for (Change change : changes) {
        holdings.add(prepare(change));
      }
      for (; taken < holdings.size(); taken++) {
        holdings.get(taken).take();
      }
      return true;
    } catch (RuntimeException e) {
      boolean prepared = holdings.size() == changes.size();
      holdings.subList(taken, holdings.size()).forEach(Holding::release);
      // A tier that refuses for want of its own room is no reason to demote.
      if (isFull(e) && (prepared || bytesPrepared(changes) > memory.bytesFree())) {
        return false;
      }
      throw e;
    }
  }

  private static boolean isFull(RuntimeException e) {
    return e instanceof KvtierException refused && refused.code() == Code.EXHAUSTED;
  }

  /** A head for which there is no memory is left with nothing. */
  private void changeInTurn(List<Change> changes, long bytesLeft) {
    List<Change> bySize = new ArrayList<>(changes);
    bySize.sort(Comparator.comparingLong(this::growth));
    long left = bytesLeft;
    for (Change change : bySize) {
      long growth = growth(change);
      boolean fits = growth <= Math.max(0, left);
      if (fits && change.from() != change.to) {
        fits =
            bytesPrepared(change) <= Math.max(0, left)
                ? changeAtOnce(List.of(change))
                : replace(change);
      }
      left -= growth;
      if (!fits) {
        left += bytes(change, change.to);
        change.letGo();
      }
    }
  }

  /**
   * Has a head let go of what it has before it gets what it will have; what of its sketches stays
   * is kept by the host meanwhile. False: somebody else has taken the memory.
   */
  private boolean replace(Change change) {
    int have = change.from().sketch();
    int want = change.to.sketch();
    if (want == 0 || (want & ~have) != 0 || change.to == Residence.DENSE) {
      change.letGo();
      return changeAtOnce(List.of(change));
    }
    List<byte[]> kept = new ArrayList<>();
    for (DeviceSlot sketch : change.layer.device.sketches(change.kvHead)) {
      byte[] bytes = new byte[shape.layout().lengthOf(want)];
      copy(sketch, have, want, new UnsafeBuffer(bytes));
      kept.add(bytes);
    }
    change.letGo();
    List<DeviceSlot> sketches = new ArrayList<>();
    try {
      for (byte[] bytes : kept) {
        DeviceSlot sketch = memory.allocate(bytes.length);
        sketches.add(sketch);
        sketch.buffer().putBytes(0, bytes);
      }
      new Holding(change, sketches, List.of()).take();
      return true;
    } catch (RuntimeException e) {
      sketches.forEach(DeviceSlot::release);
      if (isFull(e)) {
        return false;
      }
      throw e;
    }
  }

  private long growth(Change change) {
    return bytes(change, change.to) - bytes(change, change.from());
  }

  private long bytes(Change change, Residence residence) {
    return (long) change.layer.device.pages() * residence.deviceBytes(shape.layout());
  }

  /** Bytes that a head gets before it lets go of what it has. */
  private long bytesPrepared(Change change) {
    int slots = change.to.deviceBytes(shape.layout());
    if (change.from().sketch() == change.to.sketch()) {
      // Sketches stay where they are.
      slots -= Residence.TWO_PLANES.deviceBytes(shape.layout());
    }
    return (long) change.layer.device.pages() * Math.max(0, slots);
  }

  /** Under a plan, but where a head came to hold less. */
  private static void setPolicies(SessionLayer layer, List<HeadPolicy> policies) {
    List<HeadPolicy> held = new ArrayList<>(policies);
    for (int head = 0; layer.device.placesHeads() && head < held.size(); head++) {
      Residence residence = layer.device.residence(head);
      if (residence != held.get(head).residence()) {
        boolean asBefore =
            !layer.policies.isEmpty() && residence == layer.policies.get(head).residence();
        held.set(head, asBefore ? layer.policies.get(head) : HeadPolicy.STREAMED);
      }
    }
    layer.setPolicies(held);
  }

  private Holding prepare(Change change) {
    DeviceLayer layer = change.layer.device;
    int head = change.kvHead;
    Residence residence = change.to;
    List<DeviceSlot> sketches = sketches(layer, head, residence);
    try {
      List<DeviceSlot> codes =
          residence == Residence.DENSE
              ? fetch(layer, head, residence.codes(shape.layout()))
              : List.of();
      return new Holding(change, sketches, codes);
    } catch (RuntimeException e) {
      sketches.forEach(DeviceSlot::release);
      throw e;
    }
  }

  /** A head's sketches for another residence: what is there already is not fetched. */
  private List<DeviceSlot> sketches(DeviceLayer layer, int head, Residence residence) {
    int have = layer.residence(head).sketch();
    int want = residence.sketch();
    if (want == 0) {
      return List.of();
    }
    if (have == want) {
      return layer.sketches(head).stream().map(DeviceSlot::retain).toList();
    }
    if ((want & ~have) == 0) {
      return copies(layer.sketches(head), have, want);
    }
    return fetch(layer, head, want);
  }

  private List<DeviceSlot> copies(List<DeviceSlot> from, int have, int want) {
    List<DeviceSlot> copies = new ArrayList<>();
    try {
      for (DeviceSlot source : from) {
        DeviceSlot copy = memory.allocate(shape.layout().lengthOf(want));
        copies.add(copy);
        copy(source, have, want, copy.buffer());
      }
      return copies;
    } catch (RuntimeException e) {
      copies.forEach(DeviceSlot::release);
      throw e;
    }
  }

  private void copy(DeviceSlot source, int have, int want, MutableDirectBuffer to) {
    PageLayout layout = shape.layout();
    for (int left = want; left != 0; left &= left - 1) {
      Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
      to.putBytes(
          layout.offsetIn(want, section),
          source.buffer(),
          layout.offsetIn(have, section),
          layout.length(section));
    }
  }

  /** Some sections of every page of a head. */
  List<DeviceSlot> fetch(DeviceLayer layer, int head, int sections) {
    List<PageHead> wanted = new ArrayList<>();
    for (int page = 0; page < layer.pages(); page++) {
      wanted.add(new PageHead(page, head, sections));
    }
    return fetcher.fetch(wanted, layer.pageKeys());
  }
}
