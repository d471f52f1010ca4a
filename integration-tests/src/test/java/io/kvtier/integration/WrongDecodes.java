package io.kvtier.integration;

import static io.kvtier.integration.Quartet.FULL_TOKENS;
import static io.kvtier.integration.Quartet.PARTIAL_TOKENS;
import static io.kvtier.integration.Quartet.TOKENS;
import static io.kvtier.integration.Quartet.kv;
import static io.kvtier.integration.Quartet.openDecode;
import static io.kvtier.integration.Quartet.queryRows;
import static io.kvtier.integration.Quartet.zeros;
import static io.kvtier.integration.Synthetic.HEAD_DIM;
import static io.kvtier.integration.Synthetic.KV_HEADS;
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
import io.kvtier.v1.AcceptedPath;
import io.kvtier.v1.DecodeAccept;
import io.kvtier.v1.DecodeRequest;
import io.kvtier.v1.DecodeStep;
import io.kvtier.v1.StreamOpen;
import io.kvtier.v1.Tensor;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumSet;
import java.util.List;

/** Everything that Attention.Decode refuses. */
final class WrongDecodes {
  private WrongDecodes() {}

  static List<WrongCall> calls() {
    List<WrongCall> calls = new ArrayList<>();
    calls.addAll(openings());
    calls.addAll(places());
    calls.addAll(counts());
    calls.addAll(trees());
    calls.addAll(tensors());
    return calls;
  }

  private static DecodeStep.Builder step(int layer, int position, int tokens) {
    return DecodeStep.newBuilder()
        .setLayer(layer)
        .setPosition(position)
        .setQueries(queryRows(tokens))
        .setKeys(zeros(tokens, KV_HEADS))
        .setValues(zeros(tokens, KV_HEADS));
  }

  private static DecodeRequest request(DecodeStep.Builder step) {
    return DecodeRequest.newBuilder().setStep(step).build();
  }

  private static DecodeRequest opening(String sessionId, long epoch) {
    return DecodeRequest.newBuilder()
        .setOpen(StreamOpen.newBuilder().setSessionId(sessionId).setEpoch(epoch))
        .build();
  }

  private static WrongCall.Send send(DecodeStep.Builder step) {
    DecodeRequest request = request(step);
    return (at, s) -> at.decode(openDecode(s.good), request);
  }

  private static List<WrongCall> openings() {
    DecodeRequest empty = DecodeRequest.getDefaultInstance();
    DecodeRequest right = request(step(0, TOKENS, 1));
    return List.of(
        missing("open: unknown", (at, s) -> at.decode(opening(UNKNOWN_ID, 1)), UNKNOWN_ID),
        refused("open: no id", INVALID_OR_MISSING, (at, s) -> at.decode(opening("", 1))),
        refused("open: no UUID", INVALID_OR_MISSING, (at, s) -> at.decode(opening("me", 1)), "me"),
        outOfOrder(
            "open: stale epoch",
            (at, s) ->
                at.decode(
                    opening(s.good.info().getSessionId(), s.good.info().getEpoch() - 1), right),
            "epoch"),
        outOfOrder("step before open", (at, s) -> at.decode(right), "open"),
        outOfOrder(
            "open twice", (at, s) -> at.decode(openDecode(s.good), openDecode(s.good)), "open"),
        refused("empty first part", INVALID_OR_PRECONDITION, (at, s) -> at.decode(empty)),
        refused(
            "empty part", INVALID_OR_PRECONDITION, (at, s) -> at.decode(openDecode(s.good), empty)),
        outOfOrder(
            "before the prefill's finish",
            (at, s) -> at.decode(openDecode(s.partial), request(step(0, PARTIAL_TOKENS, 1))),
            "finish"));
  }

  private static List<WrongCall> places() {
    return List.of(
        invalid("layer 2", send(step(2, TOKENS, 1)), "2", "1"),
        invalid("layer 2^32-1", send(step(-1, TOKENS, 1)), "4294967295", "1"),
        outOfOrder("gap", send(step(0, TOKENS + 1, 1)), "201", "200"),
        outOfOrder("repeat", send(step(1, TOKENS - 1, 1)), "199", "200"),
        outOfOrder("position 0", send(step(0, 0, 1)), "0", "200"),
        refused(
            "position 2^32-1", INVALID_OR_PRECONDITION, send(step(0, -1, 1)), "4294967295", "200"),
        refused(
            "beyond tokens_max",
            INVALID_OR_EXHAUSTED,
            (at, s) -> at.decode(openDecode(s.full), request(step(0, FULL_TOKENS, 1))),
            "beyond",
            "60"));
  }

  private static DecodeStep.Builder tree(Integer... parents) {
    return step(0, TOKENS, 3).addAllParents(List.of(parents));
  }

  private static List<WrongCall> trees() {
    AcceptedPath none = AcceptedPath.getDefaultInstance();
    AcceptedPath many = AcceptedPath.newBuilder().addAllNodes(Collections.nCopies(65, 0)).build();
    DecodeAccept accept = DecodeAccept.getDefaultInstance();
    return List.of(
        invalid("a parent short", send(tree(-1, 0)), "parents has 2 entries", "3"),
        invalid("a parent over", send(tree(-1, 0, 1, 2)), "parents has 4 entries", "3"),
        invalid("parent -2", send(tree(-1, -2, 0)), "parents[1] is -2", "-1..0"),
        invalid("its own parent", send(tree(0, 0, 1)), "parents[0] is 0", "-1..-1"),
        invalid("a later parent", send(tree(-1, 2, 0)), "parents[1] is 2", "-1..0"),
        outOfOrder("gap", send(tree(-1, 0, 0).setPosition(TOKENS + 1)), "201", "200"),
        refused(
            "tree beyond tokens_max",
            INVALID_OR_EXHAUSTED,
            (at, s) -> at.decode(openDecode(s.full), request(tree(-1, 0, 0).setPosition(60))),
            "2 tokens at position 60 go beyond",
            "60"),
        outOfOrder(
            "accepted without a tree", send(step(0, TOKENS, 1).setAccepted(none)), "no tree waits"),
        invalid("65 accepted", send(step(0, TOKENS, 1).setAccepted(many)), "65", "0..64"),
        outOfOrder(
            "accept without a tree",
            (at, s) ->
                at.decode(openDecode(s.good), DecodeRequest.newBuilder().setAccept(accept).build()),
            "no tree waits with layer 0"),
        invalid(
            "accept of layer 2",
            (at, s) ->
                at.decode(
                    openDecode(s.good),
                    DecodeRequest.newBuilder().setAccept(accept.toBuilder().setLayer(2)).build()),
            "layer is 2"));
  }

  private static List<WrongCall> counts() {
    Tensor one = zeros(1, KV_HEADS);
    return List.of(
        invalid("65 tokens", send(step(0, TOKENS, 65)), "65", "64"),
        invalid("no token", send(step(0, TOKENS, 0)), "0", "64"),
        invalid("fewer keys than queries", send(step(0, TOKENS, 2).setKeys(one)), "keys", "2"),
        invalid("fewer values than keys", send(step(0, TOKENS, 2).setValues(one)), "values", "2"),
        invalid("fewer queries", send(step(0, TOKENS, 2).setQueries(queryRows(1)))),
        invalid("hint of fewer", send(step(0, TOKENS, 2).setHint(queryRows(1))), "hint", "2"),
        invalid("hint of more", send(step(0, TOKENS, 1).setHint(queryRows(2))), "hint", "2"),
        refused(
            "65 MiB",
            EnumSet.of(Code.RESOURCE_EXHAUSTED),
            send(step(0, TOKENS, 1).setKeys(WrongPrefills.oversized())),
            "67108864"));
  }

  private static List<WrongCall> tensors() {
    List<WrongCall> calls = new ArrayList<>();
    for (WrongTensor wrong : WrongTensor.variants(1, Q_HEADS, HEAD_DIM)) {
      calls.add(
          invalid(
              "queries " + wrong.name(),
              send(step(0, TOKENS, 1).setQueries(wrong.tensor())),
              wrong.mentions()));
      calls.add(
          invalid(
              "hint " + wrong.name(),
              send(step(0, TOKENS, 1).setHint(wrong.tensor())),
              wrong.mentions()));
    }
    List<WrongTensor> variants = WrongTensor.variants(1, KV_HEADS, HEAD_DIM);
    variants.add(WrongTensor.wrongKvDtype(1, KV_HEADS, HEAD_DIM));
    for (WrongTensor wrong : variants) {
      calls.add(
          invalid(
              "keys " + wrong.name(),
              send(step(0, TOKENS, 1).setKeys(wrong.tensor())),
              wrong.mentions()));
      calls.add(
          invalid(
              "values " + wrong.name(),
              send(step(0, TOKENS, 1).setValues(wrong.tensor())),
              wrong.mentions()));
    }
    // Rows that are good in themselves, after a step that was answered: only the step counts.
    calls.add(
        invalid(
            "NaN in the second token's values",
            send(step(0, TOKENS, 2).setValues(withNaN(kv(0, 2)))),
            "NaN",
            "[1]"));
    return calls;
  }

  private static Tensor withNaN(Tensor tensor) {
    byte[] bytes = tensor.getData().toByteArray();
    int last = bytes.length - 4;
    java.nio.ByteBuffer.wrap(bytes)
        .order(java.nio.ByteOrder.LITTLE_ENDIAN)
        .putFloat(last, Float.NaN);
    return tensor.toBuilder().setData(com.google.protobuf.ByteString.copyFrom(bytes)).build();
  }
}
