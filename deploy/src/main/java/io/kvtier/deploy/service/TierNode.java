package io.kvtier.deploy.service;

import io.kvtier.cachetier.CacheTier;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.ClusterMember;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.Node;
import io.kvtier.v1.Role;
import java.util.concurrent.ThreadLocalRandom;

/** A cache tier that is a member of a cluster. */
public final class TierNode implements AutoCloseable {
  private final CacheTier tier;
  private final Closing closing;

  private TierNode(CacheTier tier, Closing closing) {
    this.tier = tier;
    this.closing = closing;
  }

  /** Starts a tier and joins the coordinator's cluster. */
  public static TierNode start(CacheTierConfig config, String coordinatorTarget, String nodeId) {
    Closing closing = new Closing();
    try {
      CacheTier tier = closing.add(CacheTier.start(config));
      Node node =
          Node.newBuilder()
              .setNodeId(nodeId)
              .setRole(Role.ROLE_TIER)
              .setTarget(tier.target())
              .setBytesMax(tier.bytesMax())
              .setInstance(ThreadLocalRandom.current().nextLong(1, Long.MAX_VALUE))
              .build();
      closing.add(
          ClusterMember.join(
              coordinatorTarget, node, () -> new ClusterMember.Load(tier.bytesUsed(), 0)));
      return new TierNode(tier, closing);
    } catch (RuntimeException e) {
      closing.closeAfter(e);
      throw e;
    }
  }

  /** The tier itself. */
  public CacheTier tier() {
    return tier;
  }

  @Override
  public void close() {
    closing.close();
  }
}
