package io.kvtier.deploy.simulate;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PagesClient;
import io.kvtier.gpuworker.core.NodeLease;
import io.kvtier.page.PageKey;
import io.kvtier.replica.RepairPlan;
import io.kvtier.replica.ReplicaConfig;
import io.kvtier.replica.ReplicaCounts;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRef;
import java.util.ArrayDeque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * A worker: the sessions attached to it, the bytes of its device that are promised to them, its
 * leases at the tiers and the pages that it repairs.
 */
final class WorkerNode {
  /** A session that has left, and whether its pages stay. */
  record Left(Attached session, boolean keepPages) {}

  final String id;
  final String target;
  final long deviceBytesMax;
  private final long leaseTtlNs;
  private final Map<String, Attached> sessions = new LinkedHashMap<>();

  /** By the tier's index. */
  private final TreeMap<Integer, NodeLease> leases = new TreeMap<>();

  /** Sessions whose pages some tier has not heard to delete; tried again with a later detach. */
  private final ArrayDeque<Left> undone = new ArrayDeque<>();

  private RepairPlan repairs;
  private long deviceBytes;

  /** Higher with each start; fences off leases of the process before. */
  private long process = 1;

  private boolean up = true;
  private boolean cut;
  private long heardNs;

  WorkerNode(
      int index, long deviceBytesMax, long leaseTtlNs, ReplicaConfig config, ReplicaCounts counts) {
    this.id = "worker-%04d".formatted(index);
    this.target = "worker" + index + ":1";
    this.deviceBytesMax = deviceBytesMax;
    this.leaseTtlNs = leaseTtlNs;
    this.repairs = new RepairPlan(config, counts);
  }

  Node node() {
    return Node.newBuilder()
        .setNodeId(id)
        .setRole(Role.ROLE_WORKER)
        .setTarget(target)
        .setBytesMax(deviceBytesMax)
        .setInstance(process)
        .build();
  }

  boolean up() {
    return up;
  }

  /** Whether the coordinator and engines reach it. */
  boolean reachable() {
    return up && !cut;
  }

  long process() {
    return process;
  }

  RepairPlan repairs() {
    return repairs;
  }

  Map<String, Attached> sessions() {
    return sessions;
  }

  ArrayDeque<Left> undone() {
    return undone;
  }

  /** Keys that it keeps leased at some tier. */
  int keysLeased() {
    return leases.values().stream().mapToInt(NodeLease::size).sum();
  }

  long deviceBytes() {
    return deviceBytes;
  }

  /** When the coordinator heard it last. */
  long heardNs() {
    return heardNs;
  }

  void heard(long nowNs) {
    heardNs = nowNs;
  }

  /** The process dies. */
  void lose() {
    up = false;
    sessions.clear();
    leases.clear();
    undone.clear();
    deviceBytes = 0;
  }

  /** A new process takes the name. */
  void comeBack(ReplicaConfig config, ReplicaCounts counts) {
    up = true;
    process++;
    repairs = new RepairPlan(config, counts);
  }

  /** Neither the coordinator nor engines reach it any more; it goes on and reaches the tiers. */
  void cut(boolean off) {
    cut = off;
  }

  // ---- sessions

  /**
   * Takes a session in with the bytes that it cannot do without.
   *
   * @throws KvtierException EXISTS, or EXHAUSTED if the bytes are not there
   */
  Attached attach(Session session, long needBytes, long nowNs) {
    if (sessions.containsKey(session.getSessionId())) {
      throw new KvtierException(
          Code.EXISTS, "session %s is attached already".formatted(session.getSessionId()));
    }
    if (needBytes > deviceBytesMax - deviceBytes) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "session needs %d device bytes, %d of %d are free"
              .formatted(needBytes, deviceBytesMax - deviceBytes, deviceBytesMax));
    }
    Attached attached = new Attached(session, needBytes, nowNs);
    sessions.put(session.getSessionId(), attached);
    deviceBytes += needBytes;
    return attached;
  }

  /** Gives a session the bytes of its plan; false: they are not there. */
  boolean plan(Attached attached, long bytes) {
    if (bytes - attached.deviceBytes > deviceBytesMax - deviceBytes) {
      return false;
    }
    deviceBytes += bytes - attached.deviceBytes;
    attached.deviceBytes = bytes;
    return true;
  }

  /** Frees a session; null: it is not here, or here in a newer epoch. */
  @Nullable Attached detach(String session, long epoch) {
    Attached own = sessions.get(session);
    if (own == null || own.epoch > epoch) {
      return null;
    }
    sessions.remove(session);
    deviceBytes -= own.deviceBytes;
    return own;
  }

  /** Sessions that have not been used for as long as they may. */
  List<SessionRef> idle(long nowNs, int max) {
    return sessions.entrySet().stream()
        .filter(each -> {
          Attached attached = each.getValue();
          long idleNs = TimeUnit.MILLISECONDS.toNanos(attached.info.getIdleTimeoutMs());
          return nowNs - attached.usedNs >= idleNs;
        })
        .limit(max)
        .map(each ->
            SessionRef.newBuilder()
                .setSessionId(each.getKey())
                .setEpoch(each.getValue().epoch)
                .build())
        .toList();
  }

  // ---- leases

  private NodeLease lease(TierNode tier) {
    return leases.computeIfAbsent(tier.index, _ -> new NodeLease(PagesClient.BATCH_MAX));
  }

  /** A tier's lease calls, under this worker's name. */
  private NodeLease.Tier calls(TierNode tier) {
    return new NodeLease.Tier() {
      @Override
      public long lease(long leaseId, List<PageKey> keys) {
        return tier.lease(id, process, leaseId, leaseTtlNs, keys).id();
      }

      @Override
      public void release(List<PageKey> keys) {
        tier.release(id, process, keys);
      }

      @Override
      public void leasedAgain(int keys) {}
    };
  }

  void pin(TierNode tier, List<PageKey> keys) {
    lease(tier).pin(calls(tier), keys);
  }

  void hold(TierNode tier, List<PageKey> keys) {
    lease(tier).hold(calls(tier), keys);
  }

  void letGo(TierNode tier, List<PageKey> keys) {
    lease(tier).letGo(calls(tier), keys);
  }

  void release(TierNode tier, List<PageKey> keys) {
    lease(tier).release(calls(tier), keys);
  }

  /** Renews its leases at all tiers that answer, and forgets those at tiers that left long ago. */
  void renew(List<TierNode> tiers, Set<String> members, long nowNs) {
    leases
        .entrySet()
        .removeIf(each -> {
          TierNode tier = tiers.get(each.getKey());
          return each.getValue().isOver(members.contains(tier.id), nowNs, leaseTtlNs);
        });
    leases.forEach((index, lease) -> {
      TierNode tier = tiers.get(index);
      if (tier.up()) {
        lease.renew(calls(tier));
      }
    });
  }
}
