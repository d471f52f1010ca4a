package io.kvtier.integration;

import static io.kvtier.integration.Quartet.FULL_TOKENS;
import static io.kvtier.integration.Quartet.PARTIAL_TOKENS;
import static io.kvtier.integration.Quartet.TOKENS;
import static io.kvtier.integration.Quartet.TOKENS_MAX;
import static io.kvtier.integration.Quartet.chunk;
import static io.kvtier.integration.Quartet.finish;
import static io.kvtier.integration.Quartet.kv;
import static io.kvtier.integration.Quartet.open;
import static io.kvtier.integration.Quartet.queryRows;
import static io.kvtier.integration.Quartet.window;
import static io.kvtier.integration.Quartet.zeros;
import static io.kvtier.integration.Synthetic.HEAD_DIM;
import static io.kvtier.integration.Synthetic.KV_HEADS;
import static io.kvtier.integration.Synthetic.Q_HEADS;
import static io.kvtier.integration.WrongCall.invalid;
import static io.kvtier.integration.WrongCall.missing;
import static io.kvtier.integration.WrongCall.outOfOrder;
import static io.kvtier.integration.WrongCall.refused;

import com.google.protobuf.ByteString;
import io.grpc.Status.Code;
import io.kvtier.v1.PrefillRequest;
import io.kvtier.v1.StreamOpen;
import io.kvtier.v1.Tensor;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;

/** Everything that Attention.Prefill refuses. */
final class WrongPrefills {
  static final String UNKNOWN_ID = "00000000-0000-4000-8000-00000000dead";

  /** Both fit a value that depends on what came before. */
  static final EnumSet<Code> INVALID_OR_PRECONDITION =
      EnumSet.of(Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION);

  /** Both fit a context that outgrows its bound. */
  static final EnumSet<Code> INVALID_OR_EXHAUSTED =
      EnumSet.of(Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED);

  static final EnumSet<Code> INVALID_OR_MISSING = EnumSet.of(Code.INVALID_ARGUMENT, Code.NOT_FOUND);

  private static final int ROWS = 8;

  private WrongPrefills() {}

  static List<WrongCall> calls() {
    List<WrongCall> calls = new ArrayList<>();
    calls.addAll(openings());
    calls.addAll(chunks());
    calls.addAll(windows());
    calls.addAll(finishes());
    return calls;
  }

  private static PrefillRequest opening(String sessionId, long epoch) {
    return PrefillRequest.newBuilder()
        .setOpen(StreamOpen.newBuilder().setSessionId(sessionId).setEpoch(epoch))
        .build();
  }

  private static List<WrongCall> openings() {
    PrefillRequest empty = PrefillRequest.getDefaultInstance();
    PrefillRequest chunk = chunk(0, PARTIAL_TOKENS, kv(PARTIAL_TOKENS, ROWS));
    return List.of(
        missing("open: unknown", (at, s) -> at.prefill(opening(UNKNOWN_ID, 1)), UNKNOWN_ID),
        refused("open: no id", INVALID_OR_MISSING, (at, s) -> at.prefill(opening("", 1))),
        refused("open: no UUID", INVALID_OR_MISSING, (at, s) -> at.prefill(opening("me", 1)), "me"),
        outOfOrder(
            "open: stale epoch",
            (at, s) ->
                at.prefill(
                    opening(s.partial.info().getSessionId(), s.partial.info().getEpoch() - 1)),
            "epoch"),
        outOfOrder("chunk before open", (at, s) -> at.prefill(chunk), "open"),
        outOfOrder("queries before open", (at, s) -> at.prefill(window(0, queryRows(8))), "open"),
        outOfOrder("finish before open", (at, s) -> at.prefill(finish(TOKENS)), "open"),
        outOfOrder("open twice", (at, s) -> at.prefill(open(s.partial), open(s.partial)), "open"),
        outOfOrder(
            "open another after one", (at, s) -> at.prefill(open(s.partial), open(s.good)), "open"),
        refused("empty first part", INVALID_OR_PRECONDITION, (at, s) -> at.prefill(empty)),
        refused(
            "empty part", INVALID_OR_PRECONDITION, (at, s) -> at.prefill(open(s.partial), empty)));
  }

  private static WrongCall.Send send(PrefillRequest request) {
    return (at, s) -> at.prefill(open(s.partial), request);
  }

  private static List<WrongCall> chunks() {
    Tensor right = kv(PARTIAL_TOKENS, ROWS);
    int next = PARTIAL_TOKENS;
    List<WrongCall> calls = new ArrayList<>();
    calls.add(invalid("chunk: layer 2", send(chunk(2, 0, right)), "2", "1"));
    calls.add(invalid("chunk: layer 2^32-1", send(chunk(-1, 0, right)), "4294967295", "1"));
    calls.add(outOfOrder("chunk: gap", send(chunk(0, next + 1, right)), "41", "40"));
    calls.add(outOfOrder("chunk: repeat", send(chunk(0, 0, kv(0, next))), "0", "40"));
    calls.add(outOfOrder("chunk: overlap", send(chunk(0, next - 1, right)), "39", "40"));
    calls.add(outOfOrder("chunk: another layer's position", send(chunk(1, next, right)), "40"));
    calls.add(
        refused(
            "chunk: position 2^32-1",
            INVALID_OR_PRECONDITION,
            send(chunk(0, -1, right)),
            "4294967295"));
    calls.add(
        invalid("chunk: 4097 tokens", send(chunk(0, next, zeros(4097, KV_HEADS))), "4097", "4096"));
    calls.add(invalid("chunk: no token", send(chunk(0, next, zeros(0, KV_HEADS))), "0", "4096"));
    calls.add(
        invalid(
            "chunk: fewer values than keys", send(chunk(0, next, right, kv(0, 7))), "values", "7"));
    calls.add(
        refused(
            "chunk: beyond tokens_max",
            INVALID_OR_EXHAUSTED,
            (at, s) -> at.prefill(open(s.full), chunk(0, FULL_TOKENS, kv(0, 1))),
            "beyond",
            "60"));
    calls.add(
        refused(
            "chunk: partly beyond tokens_max",
            INVALID_OR_EXHAUSTED,
            (at, s) ->
                at.prefill(
                    open(s.good), chunk(0, TOKENS, zeros(TOKENS_MAX - TOKENS + 1, KV_HEADS))),
            "beyond",
            "4140"));
    calls.add(
        refused(
            "chunk: 65 MiB",
            EnumSet.of(Code.RESOURCE_EXHAUSTED),
            (at, s) -> at.prefill(open(s.partial), chunk(0, next, oversized(), right)),
            "67108864"));
    List<WrongTensor> variants = WrongTensor.variants(ROWS, KV_HEADS, HEAD_DIM);
    variants.add(WrongTensor.wrongKvDtype(ROWS, KV_HEADS, HEAD_DIM));
    for (WrongTensor wrong : variants) {
      calls.add(
          invalid(
              "chunk: keys " + wrong.name(),
              send(chunk(0, next, wrong.tensor(), right)),
              wrong.mentions()));
      calls.add(
          invalid(
              "chunk: values " + wrong.name(),
              send(chunk(0, next, right, wrong.tensor())),
              wrong.mentions()));
    }
    return calls;
  }

  /** More than a message may hold. */
  static Tensor oversized() {
    return kv(0, 1).toBuilder().setData(ByteString.copyFrom(new byte[65 << 20])).build();
  }

  private static List<WrongCall> windows() {
    Tensor right = queryRows(ROWS);
    List<WrongCall> calls = new ArrayList<>();
    calls.add(invalid("queries: layer 2", send(window(2, right)), "2", "1"));
    calls.add(invalid("queries: layer 2^32-1", send(window(-1, right)), "4294967295", "1"));
    calls.add(
        invalid(
            "queries: window of 65",
            (at, s) -> at.prefill(open(s.good), window(0, queryRows(65))),
            "65",
            "64"));
    calls.add(invalid("queries: window of 0", send(window(0, queryRows(0))), "0", "64"));
    calls.add(
        refused(
            "queries: more than the layer's tokens",
            INVALID_OR_PRECONDITION,
            send(window(0, queryRows(PARTIAL_TOKENS + 1))),
            "41",
            "40"));
    calls.add(
        refused(
            "queries: of a layer without tokens",
            INVALID_OR_PRECONDITION,
            send(window(1, right)),
            "0"));
    for (WrongTensor wrong : WrongTensor.variants(ROWS, Q_HEADS, HEAD_DIM)) {
      calls.add(
          invalid("queries " + wrong.name(), send(window(0, wrong.tensor())), wrong.mentions()));
    }
    return calls;
  }

  private static List<WrongCall> finishes() {
    List<WrongCall> calls = new ArrayList<>();
    calls.add(invalid("finish: 0 tokens", send(finish(0)), "0", "4140"));
    calls.add(invalid("finish: beyond tokens_max", send(finish(TOKENS_MAX + 1)), "4141", "4140"));
    calls.add(invalid("finish: 2^32-1 tokens", send(finish(-1)), "4294967295", "4140"));
    calls.add(
        refused(
            "finish: a layer has none",
            INVALID_OR_PRECONDITION,
            send(finish(PARTIAL_TOKENS)),
            "0",
            "40"));
    for (int tokens : new int[] {TOKENS - 1, TOKENS + 1}) {
      calls.add(
          refused(
              "finish: " + tokens + " tokens of 200",
              INVALID_OR_PRECONDITION,
              (at, s) -> at.prefill(open(s.good), finish(tokens)),
              "" + tokens,
              "200"));
    }
    return calls;
  }
}
