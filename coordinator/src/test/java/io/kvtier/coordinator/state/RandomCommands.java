package io.kvtier.coordinator.state;

import com.google.protobuf.ByteString;
import io.kvtier.v1.Command;
import io.kvtier.v1.CurvePoint;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.EndPin;
import io.kvtier.v1.EndSession;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadProfile;
import io.kvtier.v1.MoveSession;
import io.kvtier.v1.Node;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.PinRecord;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.RemoveNodes;
import io.kvtier.v1.Role;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import io.kvtier.v1.SetNodeState;
import io.kvtier.v1.SetPlan;
import java.util.Random;

/** Commands of all kinds, right ones and such as are refused, as a seed says. */
public final class RandomCommands {
  private static final int IDS = 12;

  private final Random random;
  private long nowMs = 1_000;

  public RandomCommands(long seed) {
    this.random = new Random(seed);
  }

  public Command next() {
    // Clocks of several coordinators: now and then one is behind.
    nowMs += random.nextInt(200) - 20;
    Command.Builder command = Command.newBuilder().setNowMs(nowMs);
    return switch (random.nextInt(9)) {
      case 0 -> command.setOpen(session()).build();
      case 1 ->
          command
              .setMove(
                  MoveSession.newBuilder()
                      .setSessionId(id("s"))
                      .setEpoch(epoch())
                      .setNewEpoch(epoch() + 1)
                      .setWorkerTarget(id("w") + ":1")
                      .setRequestId(random.nextBoolean() ? "" : id("m"))
                      .addLayerTokens(random.nextInt(1000)))
              .build();
      case 2 -> command.setSetPlan(plan()).build();
      case 3 ->
          command
              .setEnd(
                  EndSession.newBuilder()
                      .setSessionId(id("s"))
                      .setEpoch(epoch())
                      .setExpired(random.nextBoolean()))
              .build();
      case 4 ->
          command
              .setRegister(
                  Node.newBuilder()
                      .setNodeId(id("n"))
                      .setRole(random.nextBoolean() ? Role.ROLE_WORKER : Role.ROLE_TIER)
                      .setTarget(id("w") + ":1"))
              .build();
      case 5 -> command.setRemoveNodes(RemoveNodes.newBuilder().addNodeIds(id("n"))).build();
      case 6 ->
          command
              .setSetNodeState(
                  SetNodeState.newBuilder()
                      .setNodeId(id("n"))
                      .setState(
                          random.nextBoolean()
                              ? NodeState.NODE_STATE_DRAINING
                              : NodeState.NODE_STATE_ACTIVE))
              .build();
      case 7 ->
          command
              .setPin(
                  PinRecord.newBuilder()
                      .setPinId(id("p"))
                      .setTenant(id("t"))
                      .setDeadlineMs(nowMs + random.nextInt(2_000)))
              .build();
      default ->
          command.setEndPin(EndPin.newBuilder().setPinId(id("p")).setTenant(id("t"))).build();
    };
  }

  private String id(String kind) {
    return kind + random.nextInt(IDS);
  }

  private long epoch() {
    return 1L + random.nextInt(3);
  }

  private SessionRecord session() {
    byte[] hashes = new byte[16 * random.nextInt(3)];
    random.nextBytes(hashes);
    return SessionRecord.newBuilder()
        .setSession(
            Session.newBuilder()
                .setSessionId(id("s"))
                .setEpoch(1)
                .setGeometry(geometry())
                .setMode(PlanMode.PLAN_MODE_KVTIER)
                .setWorkerTarget(id("w") + ":1"))
        .setOpenRequest(random.nextBoolean() ? "" : id("r"))
        .setPlanGiven(random.nextInt(4) == 0)
        .setPrefixHashes(ByteString.copyFrom(hashes))
        .build();
  }

  private Geometry geometry() {
    return Geometry.newBuilder()
        .setLayers(1)
        .setQHeads(2)
        .setKvHeads(2)
        .setHeadDim(64)
        .setKvDtype(Dtype.DTYPE_BF16)
        .setModelFingerprint(ByteString.copyFrom(new byte[] {(byte) random.nextInt(3)}))
        .build();
  }

  private SetPlan plan() {
    SetPlan.Builder plan =
        SetPlan.newBuilder()
            .setSessionId(id("s"))
            .setEpoch(epoch())
            .setTokens(4096)
            .setPlan(Plan.newBuilder().setTokens(random.nextInt(4096)));
    for (int head = 0; head < 2; head++) {
      plan.addHeads(
          HeadProfile.newBuilder()
              .setKvHead(head)
              .addCurve(CurvePoint.newBuilder().setK(64).setResidual(random.nextFloat())));
    }
    return plan.build();
  }
}
