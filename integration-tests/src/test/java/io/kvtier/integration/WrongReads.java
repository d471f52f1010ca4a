package io.kvtier.integration;

import static io.kvtier.integration.Quartet.TOKENS;
import static io.kvtier.integration.Synthetic.HEAD_DIM;
import static io.kvtier.integration.Synthetic.Q_HEADS;
import static io.kvtier.integration.WrongCall.invalid;
import static io.kvtier.integration.WrongCall.missing;
import static io.kvtier.integration.WrongCall.outOfOrder;
import static io.kvtier.integration.WrongCall.refused;
import static io.kvtier.integration.WrongPrefills.INVALID_OR_EXHAUSTED;
import static io.kvtier.integration.WrongPrefills.INVALID_OR_MISSING;
import static io.kvtier.integration.WrongPrefills.INVALID_OR_PRECONDITION;
import static io.kvtier.integration.WrongPrefills.UNKNOWN_ID;

import io.grpc.Status.Code;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.GatherRequest;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.LoadRequest;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/** Everything that the worker's other calls refuse: Gather, Load, Attach. */
final class WrongReads {
  /** Of a session that no coordinator knows. */
  static final String NEW_ID = "00000000-0000-4000-8000-0000000000aa";

  /** Five groups of digits that are no UUID. */
  static final String SHORT_ID = "1-2-3-4-5";

  private WrongReads() {}

  static List<WrongCall> calls() {
    List<WrongCall> calls = new ArrayList<>();
    calls.addAll(gathers());
    calls.addAll(loads());
    calls.addAll(attaches());
    return calls;
  }

  private static WrongCall.Send gather(Consumer<GatherRequest.Builder> spoil) {
    return (at, s) -> {
      GatherRequest.Builder request =
          GatherRequest.newBuilder()
              .setSessionId(s.good.info().getSessionId())
              .setEpoch(s.good.info().getEpoch())
              .setQuery(Tensors.of(Dtype.DTYPE_FP32, new float[256], Q_HEADS, HEAD_DIM))
              .setTokensMax(10);
      spoil.accept(request);
      at.attention().gather(request.build());
    };
  }

  private static List<WrongCall> gathers() {
    List<WrongCall> calls = new ArrayList<>();
    calls.add(missing("gather: unknown", gather(r -> r.setSessionId(UNKNOWN_ID)), UNKNOWN_ID));
    calls.add(refused("gather: no id", INVALID_OR_MISSING, gather(r -> r.clearSessionId())));
    calls.add(
        outOfOrder("gather: stale epoch", gather(r -> r.setEpoch(r.getEpoch() - 1)), "epoch"));
    calls.add(invalid("gather: layer 2", gather(r -> r.setLayer(2)), "2", "1"));
    calls.add(invalid("gather: layer 2^32-1", gather(r -> r.setLayer(-1)), "4294967295", "1"));
    calls.add(invalid("gather: 0 tokens", gather(r -> r.setTokensMax(0)), "0", "4096"));
    calls.add(invalid("gather: 4097 tokens", gather(r -> r.setTokensMax(4097)), "4097", "4096"));
    calls.add(
        invalid("gather: 2^32-1 tokens", gather(r -> r.setTokensMax(-1)), "4294967295", "4096"));
    for (WrongTensor wrong : WrongTensor.variants(Q_HEADS, HEAD_DIM)) {
      calls.add(
          invalid(
              "gather: query " + wrong.name(),
              gather(r -> r.setQuery(wrong.tensor())),
              wrong.mentions()));
    }
    return calls;
  }

  private static WrongCall.Send load(Consumer<LoadRequest.Builder> spoil) {
    return (at, s) -> {
      LoadRequest.Builder request =
          LoadRequest.newBuilder()
              .setSessionId(s.good.info().getSessionId())
              .setEpoch(s.good.info().getEpoch())
              .setTokens(TOKENS);
      spoil.accept(request);
      Loopback.drain(at.attention().load(request.build()));
    };
  }

  private static List<WrongCall> loads() {
    return List.of(
        missing("load: unknown", load(r -> r.setSessionId(UNKNOWN_ID)), UNKNOWN_ID),
        refused("load: no id", INVALID_OR_MISSING, load(r -> r.clearSessionId())),
        outOfOrder("load: stale epoch", load(r -> r.setEpoch(r.getEpoch() - 1)), "epoch"),
        invalid("load: layer 2", load(r -> r.setLayer(2)), "2", "1"),
        invalid("load: layer 2^32-1", load(r -> r.setLayer(-1)), "4294967295", "1"),
        invalid("load: 0 tokens", load(r -> r.setTokens(0)), "tokens is 0"),
        invalid("load: a token too many", load(r -> r.setTokens(201)), "200", "199"),
        invalid("load: 2^32-1 tokens", load(r -> r.setTokens(-1)), "4294967295", "200"),
        invalid("load: from the end", load(r -> r.setPosition(200).setTokens(1)), "200"),
        invalid("load: beyond the end", load(r -> r.setPosition(150).setTokens(51)), "200", "199"),
        invalid("load: position 2^32-1", load(r -> r.setPosition(-1).setTokens(1)), "4294967295"),
        invalid(
            "load: a sum that wraps around",
            load(r -> r.setPosition(100).setTokens(-50)),
            "4294967246"));
  }

  private static WrongCall.Send attach(Consumer<AttachRequest.Builder> spoil) {
    return (at, s) -> {
      AttachRequest.Builder request =
          AttachRequest.newBuilder().setSession(s.good.info().toBuilder().setSessionId(NEW_ID));
      spoil.accept(request);
      var _ = at.attention().attach(request.build());
    };
  }

  private static WrongCall.Send attachSession(Consumer<Session.Builder> spoil) {
    return attach(r -> spoil.accept(r.getSessionBuilder()));
  }

  private static List<WrongCall> attaches() {
    Geometry wider = Synthetic.geometry().toBuilder().setHeadDim(128).build();
    EnumSet<Code> duplicate = EnumSet.of(Code.ALREADY_EXISTS);
    List<WrongCall> calls = new ArrayList<>();
    calls.add(
        refused(
            "attach: twice",
            duplicate,
            (at, s) -> attach(r -> r.setSession(s.good.info())).to(at, s)));
    calls.add(
        refused(
            "attach: twice, with a newer epoch",
            duplicate,
            (at, s) ->
                attach(r -> r.setSession(s.good.info().toBuilder().setEpoch(99))).to(at, s)));
    calls.add(invalid("attach: no session", attach(r -> r.clearSession()), "session"));
    calls.add(invalid("attach: no id", attachSession(r -> r.clearSessionId()), "session_id"));
    calls.add(invalid("attach: no UUID", attachSession(r -> r.setSessionId("me")), "me"));
    calls.add(
        invalid(
            "attach: a UUID and more", attachSession(r -> r.setSessionId(NEW_ID + "0")), NEW_ID));
    calls.add(
        invalid("attach: a short UUID", attachSession(r -> r.setSessionId(SHORT_ID)), SHORT_ID));
    calls.add(missing("attach: unknown fork_of", attach(r -> r.setForkOf(UNKNOWN_ID)), UNKNOWN_ID));
    calls.add(
        refused(
            "attach: fork_of no UUID", INVALID_OR_MISSING, attach(r -> r.setForkOf("me")), "me"));
    calls.add(
        refused(
            "attach: fork_of itself",
            INVALID_OR_MISSING,
            attach(r -> r.setForkOf(NEW_ID)),
            NEW_ID));
    calls.add(
        refused(
            "attach: fork_of another geometry",
            INVALID_OR_PRECONDITION,
            (at, s) ->
                attach(
                        r -> {
                          r.setForkOf(s.good.info().getSessionId());
                          r.getSessionBuilder().setGeometry(wider);
                        })
                    .to(at, s),
            "geometry"));
    calls.add(
        refused(
            "attach: fork_of more tokens than tokens_max",
            EnumSet.copyOf(union(INVALID_OR_EXHAUSTED, INVALID_OR_PRECONDITION)),
            (at, s) ->
                attach(
                        r -> {
                          r.setForkOf(s.good.info().getSessionId());
                          r.getSessionBuilder().setTokensMax(TOKENS - 1);
                        })
                    .to(at, s),
            "199",
            "200"));
    calls.add(invalid("attach: tokens_max 0", attachSession(r -> r.setTokensMax(0)), "tokens_max"));
    calls.add(
        invalid("attach: tokens_max 2^32-1", attachSession(r -> r.setTokensMax(-1)), "4294967295"));
    for (Map.Entry<String, Geometry> wrong : WrongOpens.geometries().entrySet()) {
      calls.add(
          invalid(
              "attach: " + wrong.getKey(), attachSession(r -> r.setGeometry(wrong.getValue()))));
    }
    for (Map.Entry<String, Plan> wrong : WrongOpens.plans().entrySet()) {
      calls.add(
          invalid("attach: " + wrong.getKey(), attachSession(r -> r.setPlan(wrong.getValue()))));
    }
    return calls;
  }

  private static List<Code> union(EnumSet<Code> a, EnumSet<Code> b) {
    List<Code> union = new ArrayList<>(a);
    union.addAll(b);
    return union;
  }
}
