package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.session.CodesFetcher.PageHead;
import io.kvtier.rpc.PlanLimits;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.Plan;
import java.util.ArrayList;
import java.util.List;

/**
 * Brings a session under a plan, all of it or nothing: whatever can fail (a plan that is none, a
 * tier that does not answer, full memory) fails before the first head changes. The caller holds the
 * locks of all layers.
 */
final class PlanSwitch {
  /** Codes that a head lacks, in the order of its pages. */
  private record Arrival(DeviceLayer layer, int kvHead, List<DeviceSlot> codes) {}

  private final SessionLayer[] layers;
  private final CodesFetcher fetcher;

  PlanSwitch(SessionLayer[] layers, CodesFetcher fetcher) {
    this.layers = layers;
    this.fetcher = fetcher;
  }

  /**
   * The plan's policies.
   *
   * @return {@code [layers][kvHeads]}
   * @throws io.kvtier.KvtierException INVALID if the plan does not fit the geometry or breaks a
   *     bound
   */
  static List<List<HeadPolicy>> policiesOf(Plan plan, Geometry geometry) {
    PlanLimits.check(plan, geometry);
    List<List<HeadPolicy>> policies = new ArrayList<>();
    for (int layer = 0; layer < geometry.getLayers(); layer++) {
      policies.add(Sessions.policiesOf(plan, geometry, layer));
    }
    return policies;
  }

  /** Fetches what heads that become dense lack, then switches all layers. */
  void apply(List<List<HeadPolicy>> policies) {
    List<Arrival> arrivals = new ArrayList<>();
    try {
      for (int layer = 0; layer < layers.length; layer++) {
        for (int head = 0; head < policies.get(layer).size(); head++) {
          if (policies.get(layer).get(head).dense()) {
            arrivals.add(fetchMissing(layers[layer].device, head));
          }
        }
      }
    } catch (RuntimeException e) {
      arrivals.forEach(arrival -> arrival.codes().forEach(DeviceSlot::release));
      throw e;
    }
    for (Arrival arrival : arrivals) {
      arrival.codes().forEach(slot -> arrival.layer().addCodes(arrival.kvHead(), slot));
    }
    for (int layer = 0; layer < layers.length; layer++) {
      for (int head = 0; head < policies.get(layer).size(); head++) {
        if (!policies.get(layer).get(head).dense()) {
          layers[layer].device.releaseCodes(head);
        }
      }
      layers[layer].setPolicies(policies.get(layer));
    }
  }

  private Arrival fetchMissing(DeviceLayer layer, int head) {
    List<PageHead> wanted = new ArrayList<>();
    for (int page = layer.codesHeld(head); page < layer.pages(); page++) {
      wanted.add(new PageHead(page, head));
    }
    return new Arrival(layer, head, fetcher.fetch(wanted, layer.pageKeys()));
  }
}
