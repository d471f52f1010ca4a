package io.kvtier.gpuworker.session;

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
import java.util.List;

/**
 * Brings layers under other policies, all of it or nothing: whatever can fail (a plan that is none,
 * a tier that does not answer, full memory) fails before the first head changes. The caller holds
 * the locks of the layers.
 */
final class PlanSwitch {
  /** What a head will hold. */
  private record Holding(
      DeviceLayer layer,
      int kvHead,
      Residence residence,
      List<DeviceSlot> sketches,
      List<DeviceSlot> codes) {
    void take() {
      layer.hold(kvHead, residence, sketches, codes);
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

  /** Gets what heads will hold and have not, then switches all layers. */
  void apply(SessionLayer[] layers, List<List<HeadPolicy>> policies) {
    List<Holding> holdings = new ArrayList<>();
    try {
      for (int layer = 0; layer < layers.length; layer++) {
        boolean places = layers[layer].device.placesHeads();
        for (int head = 0; places && head < policies.get(layer).size(); head++) {
          Residence residence = policies.get(layer).get(head).residence();
          if (residence != layers[layer].device.residence(head)) {
            holdings.add(prepare(layers[layer].device, head, residence));
          }
        }
      }
    } catch (RuntimeException e) {
      holdings.forEach(Holding::release);
      throw e;
    }
    int taken = 0;
    try {
      for (; taken < holdings.size(); taken++) {
        holdings.get(taken).take();
      }
    } catch (RuntimeException e) {
      holdings.subList(taken, holdings.size()).forEach(Holding::release);
      throw e;
    }
    for (int layer = 0; layer < layers.length; layer++) {
      layers[layer].setPolicies(policies.get(layer));
    }
  }

  private Holding prepare(DeviceLayer layer, int head, Residence residence) {
    List<DeviceSlot> sketches = sketches(layer, head, residence);
    try {
      List<DeviceSlot> codes =
          residence == Residence.DENSE ? fetch(layer, head, residence.codes()) : List.of();
      return new Holding(layer, head, residence, sketches, codes);
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
    PageLayout layout = shape.layout();
    List<DeviceSlot> copies = new ArrayList<>();
    try {
      for (DeviceSlot source : from) {
        DeviceSlot copy = memory.allocate(layout.lengthOf(want));
        copies.add(copy);
        for (int left = want; left != 0; left &= left - 1) {
          Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
          copy.buffer()
              .putBytes(
                  layout.offsetIn(want, section),
                  source.buffer(),
                  layout.offsetIn(have, section),
                  layout.length(section));
        }
      }
      return copies;
    } catch (RuntimeException e) {
      copies.forEach(DeviceSlot::release);
      throw e;
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
