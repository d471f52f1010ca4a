package io.kvtier.deploy.simulate;

import io.kvtier.coordinator.lead.Caller;
import io.kvtier.coordinator.lead.IdleSessions;
import io.kvtier.coordinator.lead.Lead;
import io.kvtier.coordinator.lead.Members;
import io.kvtier.coordinator.lead.Plans;
import io.kvtier.coordinator.lead.PrefixSource;
import io.kvtier.coordinator.lead.Prompts;
import io.kvtier.coordinator.lead.SessionCloser;
import io.kvtier.coordinator.lead.SessionMover;
import io.kvtier.coordinator.lead.SessionOpener;
import io.kvtier.coordinator.lead.Workers;
import io.kvtier.coordinator.log.LocalLog;
import io.kvtier.coordinator.membership.NodeLeases;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.coordinator.prefix.PrefixDirectory;
import io.kvtier.coordinator.prefix.StoredPrefix;
import io.kvtier.coordinator.session.Reservations;
import io.kvtier.page.Codec;
import io.kvtier.page.PrefixChain;
import io.kvtier.replica.Rendezvous;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.DrainRequest;
import io.kvtier.v1.HeartbeatRequest;
import io.kvtier.v1.HeartbeatResponse;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.Node;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.Plan;
import io.kvtier.v1.RegisterRequest;
import io.kvtier.v1.ResumeRequest;
import io.kvtier.v1.Role;
import io.kvtier.v1.SessionRecord;
import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.util.List;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.stream.Collectors;

/** The coordinator, put together as a process does it, but in virtual time. */
final class Front {
  private static final long MS_NS = 1_000_000L;

  final WatchedLog log;
  final PrefixDirectory prefixes;
  private final Lead lead;
  private final SessionOpener opener;
  private final SessionMover mover;
  private final SessionCloser closer;
  private final IdleSessions idle;
  private final Members members;
  private final Plans plans;

  Front(
      SimulationConfig config,
      Parts parts,
      Workers workers,
      EventQueue time,
      Audit audit,
      SplittableRandom ids) {
    this.log = new WatchedLog(parts.log().apply(new LocalLog(config.seed())), audit);
    this.prefixes = new PrefixDirectory(config.prefixKeys());
    this.lead =
        new Lead(
            log,
            new Reservations(config.sessions()),
            new NodeLeases(Cluster.NODE_LEASE_NS),
            time::nowNs,
            () -> time.nowNs() / MS_NS);
    CoordinatorMeters meters = new CoordinatorMeters(new SimpleMeterRegistry());
    Workers reached = parts.workers().apply(workers);
    Prompts prompts = new Prompts(parts.prefixes().apply(new Told()));
    this.opener =
        new SessionOpener(
            lead, reached, prompts, () -> new UUID(ids.nextLong(), ids.nextLong()), meters);
    this.mover = new SessionMover(lead, reached, prompts, meters);
    this.closer = new SessionCloser(lead, reached, meters);
    this.idle = new IdleSessions(lead, meters);
    this.members = new Members(lead, idle, reached);
    this.plans = new Plans(lead, meters);
  }

  private final class Told implements PrefixSource {
    @Override
    public StoredPrefix find(PrefixChain chain, int layers, Codec codec) {
      return prefixes.find(chain, layers, codec);
    }

    @Override
    public boolean whole() {
      return true;
    }
  }

  private static Caller caller(String tenant) {
    return new Caller(tenant, () -> false);
  }

  SessionRecord open(OpenRequest request, String tenant) {
    return opener.open(request, caller(tenant));
  }

  SessionRecord resume(ResumeRequest request, String tenant) {
    return mover.resume(request, caller(tenant));
  }

  void close(CloseRequest request) {
    closer.close(request);
  }

  Plan plan(MakePlanRequest request) {
    return plans.make(request);
  }

  void register(Node node) {
    var _ = members.register(RegisterRequest.newBuilder().setNode(node).build());
  }

  HeartbeatResponse heartbeat(HeartbeatRequest request) {
    return members.heartbeat(request);
  }

  void drain(String node, boolean undo) {
    var _ = members.drain(DrainRequest.newBuilder().setNodeId(node).setUndo(undo).build());
  }

  /** What a leader does by itself. */
  void keepHouse() {
    lead.removeLapsed();
    idle.expireUnserved();
  }

  /** The sessions that are open, oldest first. */
  List<SessionRecord> sessions() {
    return lead.look(view -> view.state().sessions().list());
  }

  SessionRecord session(String id) {
    return lead.look(view -> view.state().sessions().get(id));
  }

  int sessionCount() {
    return lead.look(view -> view.state().sessions().count());
  }

  int sessionsOn(String target) {
    return lead.look(view -> view.state().sessions().countOn(target));
  }

  /** The members of a role. */
  List<Node> nodes(Role role) {
    return lead.look(view -> view.state().nodes().nodes(role));
  }

  /** The tiers as workers rank them: none that drains. */
  Rendezvous tiers() {
    List<Node> tiers = nodes(Role.ROLE_TIER);
    return new Rendezvous(
        lead.look(view -> view.state().nodes().epoch()),
        tiers.stream().filter(tier -> !drains(tier)).map(Node::getNodeId).toList(),
        tiers.stream().collect(Collectors.toMap(Node::getNodeId, Node::getInstance)),
        tiers.stream().filter(Front::drains).map(Node::getNodeId).toList());
  }

  private static boolean drains(Node node) {
    return node.getState() == NodeState.NODE_STATE_DRAINING;
  }
}
