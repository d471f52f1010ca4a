package io.kvtier.coordinator.state;

import io.kvtier.KvtierException;
import io.kvtier.coordinator.membership.NodeTable;
import io.kvtier.coordinator.pin.PinTable;
import io.kvtier.coordinator.plan.Curves;
import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.coordinator.profile.ModelKey;
import io.kvtier.coordinator.profile.ProfileLimits;
import io.kvtier.coordinator.profile.ProfileTable;
import io.kvtier.coordinator.session.ChangeLog;
import io.kvtier.coordinator.session.SessionTable;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import io.kvtier.v1.EndPin;
import io.kvtier.v1.EndSession;
import io.kvtier.v1.MoveSession;
import io.kvtier.v1.Refusal;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionChangeKind;
import io.kvtier.v1.SessionRecord;
import io.kvtier.v1.SetNodeState;
import io.kvtier.v1.SetPlan;
import io.kvtier.v1.SnapshotHead;
import io.kvtier.v1.SnapshotPart;
import java.util.List;
import java.util.function.Consumer;

/**
 * The coordinators' state machine. The same commands in the same order make the same state and the
 * same results, wherever they are applied; its bounds are constants, since coordinators must not
 * differ in them. Not thread-safe: the log that owns it serializes all calls.
 */
public final class ClusterState {
  /** Changes of sessions that a watcher may be behind. */
  static final int CHANGES_MAX = 4096;

  private final SessionTable sessions = new SessionTable();
  private final NodeTable nodes = new NodeTable(NodeTable.NODES_MAX);
  private final PinTable pins = new PinTable(PinTable.PINS_MAX);
  private final ProfileTable profiles = new ProfileTable(ProfileLimits.defaults());
  private final ChangeLog changes = new ChangeLog(CHANGES_MAX);
  private long nowMs;

  public SessionTable sessions() {
    return sessions;
  }

  public NodeTable nodes() {
    return nodes;
  }

  public PinTable pins() {
    return pins;
  }

  public ProfileTable profiles() {
    return profiles;
  }

  public ChangeLog changes() {
    return changes;
  }

  /** Applies a command and tells what came of it; one that is refused changes nothing. */
  public Applied apply(Command command) {
    // Clocks of different writers may disagree; time here does not run backwards.
    nowMs = Math.max(nowMs, command.getNowMs());
    try {
      return switch (command.getKindCase()) {
        case OPEN -> open(command.getOpen());
        case MOVE -> move(command.getMove());
        case SET_PLAN -> setPlan(command.getSetPlan());
        case END -> end(command.getEnd());
        case REGISTER -> {
          nodes.register(command.getRegister());
          yield membership();
        }
        case REMOVE_NODES -> {
          command.getRemoveNodes().getNodeIdsList().forEach(nodes::remove);
          yield membership();
        }
        case SET_NODE_STATE -> {
          SetNodeState change = command.getSetNodeState();
          nodes.setState(change.getNodeId(), change.getState());
          yield membership();
        }
        case PIN -> Applied.newBuilder().setPin(pins.pin(command.getPin(), nowMs)).build();
        case END_PIN -> {
          EndPin end = command.getEndPin();
          yield Applied.newBuilder()
              .setPin(pins.unpin(end.getPinId(), end.getTenant(), nowMs))
              .build();
        }
        case KIND_NOT_SET ->
            throw new KvtierException(
                KvtierException.Code.INTERNAL,
                "a command of a kind that this coordinator does not know; update it");
      };
    } catch (KvtierException e) {
      return Applied.newBuilder()
          .setRefusal(
              Refusal.newBuilder()
                  .setCode(e.code().name())
                  .setMessage(String.valueOf(e.getMessage())))
          .build();
    }
  }

  /**
   * What came of a command, as its caller learns it.
   *
   * @throws KvtierException as it was refused
   */
  public static Applied requireDone(Applied applied) {
    if (applied.hasRefusal()) {
      throw new KvtierException(
          KvtierException.Code.valueOf(applied.getRefusal().getCode()),
          applied.getRefusal().getMessage());
    }
    return applied;
  }

  private Applied open(SessionRecord record) {
    SessionRecord opened = sessions.open(record);
    if (opened.equals(record)) {
      changes.add(SessionChangeKind.SESSION_CHANGE_KIND_OPENED, record.getSession());
    }
    return session(opened);
  }

  private Applied move(MoveSession move) {
    long before = sessions.get(move.getSessionId()).getSession().getEpoch();
    SessionRecord moved = sessions.move(move);
    if (moved.getSession().getEpoch() != before) {
      changes.add(SessionChangeKind.SESSION_CHANGE_KIND_MOVED, moved.getSession());
    }
    return session(moved);
  }

  private Applied setPlan(SetPlan change) {
    String id = change.getSessionId();
    Session session = sessions.get(id, change.getEpoch()).getSession();
    // Before anything changes, as it may refuse.
    List<ResidualCurve> curves =
        Curves.of(change.getHeadsList(), session.getGeometry(), change.getTokens());
    SessionRecord planned = sessions.setPlan(id, change.getEpoch(), change.getPlan());
    changes.add(SessionChangeKind.SESSION_CHANGE_KIND_PLANNED, planned.getSession());
    if (!curves.isEmpty() && sessions.markProfiled(id, change.getEpoch())) {
      profiles.merge(
          ModelKey.of(session.getGeometry(), session.getMode()), change.getTokens(), curves);
    }
    return session(sessions.get(id));
  }

  private Applied end(EndSession end) {
    SessionRecord ended = sessions.end(end.getSessionId(), end.getEpoch());
    changes.add(
        end.getExpired()
            ? SessionChangeKind.SESSION_CHANGE_KIND_EXPIRED
            : SessionChangeKind.SESSION_CHANGE_KIND_CLOSED,
        ended.getSession());
    return session(ended);
  }

  private static Applied session(SessionRecord record) {
    return Applied.newBuilder().setSession(record).build();
  }

  private Applied membership() {
    return Applied.newBuilder().setMembershipEpoch(nodes.epoch()).build();
  }

  /** Tells everything, in an order that depends on the commands alone. */
  public void snapshot(Consumer<SnapshotPart> out) {
    out.accept(
        SnapshotPart.newBuilder()
            .setHead(
                SnapshotHead.newBuilder()
                    .setNowMs(nowMs)
                    .setMembershipEpoch(nodes.epoch())
                    .setChangeSequence(changes.sequence()))
            .build());
    sessions.list().forEach(s -> out.accept(SnapshotPart.newBuilder().setSession(s).build()));
    nodes.nodes().forEach(n -> out.accept(SnapshotPart.newBuilder().setNode(n).build()));
    profiles.records().forEach(p -> out.accept(SnapshotPart.newBuilder().setProfile(p).build()));
    pins.list().forEach(p -> out.accept(SnapshotPart.newBuilder().setPin(p).build()));
  }

  /** Forgets everything; a snapshot's parts follow, its head first. */
  public void clear() {
    sessions.clear();
    nodes.restore(0);
    profiles.clear();
    pins.clear();
    changes.restore(0);
    nowMs = 0;
  }

  /** Takes a snapshot's next part in. */
  public void restore(SnapshotPart part) {
    switch (part.getPartCase()) {
      case HEAD -> {
        nowMs = part.getHead().getNowMs();
        nodes.restore(part.getHead().getMembershipEpoch());
        changes.restore(part.getHead().getChangeSequence());
      }
      case SESSION -> sessions.restore(part.getSession());
      case NODE -> nodes.restore(part.getNode());
      case PROFILE -> profiles.restore(part.getProfile());
      case PIN -> pins.restore(part.getPin());
      case PART_NOT_SET ->
          throw new KvtierException(
              KvtierException.Code.INTERNAL,
              "a snapshot's part of a kind that this coordinator does not know; update it");
    }
  }
}
