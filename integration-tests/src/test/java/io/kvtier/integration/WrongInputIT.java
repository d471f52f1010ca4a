package io.kvtier.integration;

import static io.kvtier.integration.Quartet.PARTIAL_TOKENS;
import static io.kvtier.integration.Quartet.TOKENS;
import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;

import com.google.protobuf.ByteString;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.v1.ContainsRequest;
import io.kvtier.v1.DeleteRequest;
import io.kvtier.v1.DetachRequest;
import io.kvtier.v1.PrefillRequest;
import io.kvtier.v1.PutRequest;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Wrong input to every call: each is refused with the contract's status, names the value and the
 * bound, and changes nothing. Written from the contract; each call meets sessions of its own.
 */
@Timeout(value = 90, unit = TimeUnit.SECONDS, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class WrongInputIT {
  private static Loopback at;

  private long deviceBytesBefore;
  private long tierBytesBefore;
  private Quartet sessions;
  private Loopback.State before;

  @BeforeAll
  static void start() throws Exception {
    at = new Loopback();
    PutRequest put =
        PutRequest.newBuilder().setKey(WrongPages.STORED_KEY).setPage(WrongPages.PAGE).build();
    Loopback.exchange(at.pages().put(), List.of(put));
  }

  @AfterAll
  static void stop() {
    at.close();
  }

  @BeforeEach
  void open() throws Exception {
    deviceBytesBefore = at.deviceBytes();
    tierBytesBefore = at.tierBytes();
    sessions = new Quartet(at);
    before = at.state();
  }

  @AfterEach
  void close() throws Exception {
    at.reconnect();
    for (String id : List.of(WrongReads.NEW_ID, WrongReads.SHORT_ID)) {
      var _ = at.attention().detach(DetachRequest.newBuilder().setSessionId(id).build());
    }
    sessions.close();
    assertThat(at.deviceBytes()).as("device bytes after closing").isEqualTo(deviceBytesBefore);
    assertThat(at.tierBytes()).as("tier bytes after closing").isEqualTo(tierBytesBefore);
  }

  static List<WrongCall> prefills() {
    return WrongPrefills.calls();
  }

  static List<WrongCall> decodes() {
    return WrongDecodes.calls();
  }

  static List<WrongCall> reads() {
    return WrongReads.calls();
  }

  static List<WrongCall> opens() {
    return WrongOpens.calls();
  }

  static List<WrongCall> pages() {
    return WrongPages.calls();
  }

  static List<WrongCall> cluster() {
    return WrongCluster.calls();
  }

  @ParameterizedTest
  @MethodSource("prefills")
  void prefillRefuses(WrongCall call) throws Exception {
    requireRefusal(call);
  }

  @ParameterizedTest
  @MethodSource("decodes")
  void decodeRefuses(WrongCall call) throws Exception {
    requireRefusal(call);
  }

  @ParameterizedTest
  @MethodSource("reads")
  void theWorkersOtherCallsRefuse(WrongCall call) throws Exception {
    requireRefusal(call);
  }

  @ParameterizedTest
  @MethodSource("opens")
  void sessionsRefuse(WrongCall call) throws Exception {
    requireRefusal(call);
  }

  @ParameterizedTest
  @MethodSource("pages")
  void pagesRefuse(WrongCall call) throws Exception {
    requireRefusal(call);
  }

  @ParameterizedTest
  @MethodSource("cluster")
  void theClusterRefuses(WrongCall call) throws Exception {
    requireRefusal(call);
  }

  private void requireRefusal(WrongCall call) throws Exception {
    Throwable thrown = catchThrowable(() -> call.send().to(at, sessions));
    assertThat(thrown)
        .as("accepted")
        .isInstanceOfAny(StatusException.class, StatusRuntimeException.class);
    Status status = Status.fromThrowable(thrown);
    assertThat(status.getCode()).as("%s", status).isIn(call.codes());
    assertThat(status.getDescription()).as("a description that tells why").isNotBlank();
    assertThat(call.mentions()).allMatch(status.getDescription()::contains, "in: " + status);
    requireNothingChanged();
  }

  private void requireNothingChanged() throws Exception {
    Loopback.State now = at.state();
    assertThat(now.deviceBytes()).as("device bytes").isEqualTo(before.deviceBytes());
    assertThat(now.tierBytes()).as("tier bytes").isEqualTo(before.tierBytes());
    assertThat(now).isEqualTo(before);
    ContainsRequest stored = ContainsRequest.newBuilder().addKeys(WrongPages.STORED_KEY).build();
    assertThat(at.pages().contains(stored).getStoredList()).containsExactly(true);
    sessions.requireThatAllGoOn();
  }

  /** The harness itself: without any wrong call the sessions do go on alike. */
  @Test
  void equalSessionsDecodeAlike() throws Exception {
    requireNothingChanged();
  }

  @Test
  void aRefusalChangesNothingOfWhatTheStreamDidBefore() {
    assertThatThrownBy(() ->
            at.prefill(
                Quartet.open(sessions.partial),
                Quartet.chunk(0, PARTIAL_TOKENS, Quartet.kv(PARTIAL_TOKENS, 10)),
                Quartet.chunk(0, PARTIAL_TOKENS, Quartet.kv(PARTIAL_TOKENS, 10))))
        .hasMessageContaining("FAILED_PRECONDITION")
        .hasMessageContaining("50");
    assertThatThrownBy(() ->
            at.prefill(
                Quartet.open(sessions.partial),
                Quartet.chunk(0, 51, Quartet.kv(PARTIAL_TOKENS, 10))))
        .hasMessageContaining("50");
  }

  @Test
  void noSecondFinishFollowsAFinish() {
    requireOutOfOrder(
        Quartet.open(sessions.full),
        Quartet.finish(Quartet.FULL_TOKENS),
        Quartet.finish(Quartet.FULL_TOKENS));
  }

  @Test
  void noChunkFollowsAFinish() {
    requireOutOfOrder(
        Quartet.open(sessions.partial),
        Quartet.chunk(1, 0, Quartet.kv(0, PARTIAL_TOKENS)),
        Quartet.finish(PARTIAL_TOKENS),
        Quartet.chunk(0, PARTIAL_TOKENS, Quartet.kv(0, 1)));
  }

  private static void requireOutOfOrder(PrefillRequest... requests) {
    assertThatThrownBy(() -> at.prefill(requests)).hasMessageContaining("FAILED_PRECONDITION");
  }

  @Test
  void whatIsNotThereNeedNotBeFreed() throws Exception {
    DetachRequest detach =
        DetachRequest.newBuilder().setSessionId(WrongPrefills.UNKNOWN_ID).build();
    var _ = at.attention().detach(detach);
    byte[] other = WrongPages.STORED_KEY.toByteArray();
    other[0] ^= 1;
    DeleteRequest delete = DeleteRequest.newBuilder().addKeys(ByteString.copyFrom(other)).build();
    assertThat(at.pages().delete(delete).getDeleted()).isZero();
    requireNothingChanged();
  }

  /** A message refused for its size must not take the connection's other calls with it. */
  @Test
  void anOversizedMessageLeavesTheConnectionUsable() throws Exception {
    for (int i = 0; i < 3; i++) {
      assertThatThrownBy(() ->
              at.prefill(
                  Quartet.open(sessions.partial),
                  Quartet.chunk(0, PARTIAL_TOKENS, WrongPrefills.oversized())))
          .isInstanceOf(StatusException.class);
      at.prefill(Quartet.open(sessions.partial));
    }
    requireNothingChanged();
  }

  private static void refuses(Code code, ThrowingCallable call, String... mentions) {
    assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            KvtierException.class,
            e -> {
              assertThat(e.code()).as("%s", e).isEqualTo(code);
              assertThat(e.getMessage()).contains(List.of(mentions));
            });
  }

  @Test
  void theClientTellsTheRefusal() throws Exception {
    KvSession good = sessions.good;
    refuses(Code.INVALID, () -> SessionOptions.of(Synthetic.geometry(), 0), "0", "1048576");
    refuses(Code.INVALID, () -> SessionOptions.of(Synthetic.geometry(), 1 << 20 | 1), "1048577");
    SessionOptions odd =
        SessionOptions.of(Synthetic.geometry().toBuilder().setHeadDim(63).build(), 10);
    refuses(Code.INVALID, () -> at.client.open(odd), "63", "multiple of 16");
    refuses(Code.NOT_FOUND, () -> at.client.get(WrongPrefills.UNKNOWN_ID), "dead");
    refuses(Code.INVALID, () -> good.load(0, 0, TOKENS + 1), "200", "199");
    refuses(Code.INVALID, () -> good.load(-1, 0, 1), "4294967295");
    refuses(Code.INVALID, () -> good.gather(LAYERS, new float[Q_ROW], 1), "2", "1");
    refuses(Code.INVALID, () -> good.gather(0, new float[Q_ROW], 4097), "4097", "4096");
    refuses(Code.INVALID, () -> good.gather(0, new float[Q_ROW - 1], 10), "255", "256");
    refuses(Code.INVALID, () -> KvtierClient.connect("nowhere"), "nowhere", "host:port");
    requireNothingChanged();
  }

  /** Arguments that the client can judge by itself, before anything is sent. */
  @ParameterizedTest
  @ValueSource(strings = {"keys", "values", "queries", "hint", "output", "tokens"})
  void theClientRefusesWrongArrays(String wrong) throws Exception {
    float[] row = new float[Synthetic.KV_ROW];
    float[] query = new float[Q_ROW];
    float[] none = new float[0];
    float[] shorter = new float[Q_ROW - 1];
    switch (wrong) {
      case "keys" -> {
        refuses(Code.INVALID, () -> chunk(1, none, row), "keys");
        refuses(Code.INVALID, () -> step(query, none, row, none, query), "keys");
      }
      case "values" -> {
        refuses(Code.INVALID, () -> chunk(1, row, none), "values");
        refuses(Code.INVALID, () -> step(query, row, none, none, query), "values");
      }
      case "queries" -> refuses(Code.INVALID, () -> step(shorter, row, row, none, query), "255");
      case "hint" -> refuses(Code.INVALID, () -> step(query, row, row, shorter, query), "hint");
      case "output" -> refuses(Code.INVALID, () -> step(query, row, row, none, shorter), "output");
      default -> refuses(Code.INVALID, () -> chunk(-1, row, row), "-1");
    }
    requireNothingChanged();
  }

  private void step(float[] query, float[] keys, float[] values, float[] hint, float[] output) {
    try (DecodeStream stream = sessions.good.decode()) {
      stream.step(0, TOKENS, 1, query, keys, values, hint, output);
    }
  }

  private void chunk(int tokens, float[] keys, float[] values) {
    try (PrefillStream stream = sessions.partial.prefill()) {
      stream.chunk(0, PARTIAL_TOKENS, tokens, keys, values);
    }
  }

  @Test
  void aClosedSessionIsNotFound() {
    KvSession closed = at.client.open(SessionOptions.of(Synthetic.geometry(), 10));
    closed.close();
    closed.close();
    String id = closed.info().getSessionId();
    refuses(Code.NOT_FOUND, () -> at.client.get(id), id);
    refuses(Code.NOT_FOUND, () -> closed.load(0, 0, 1), id);
    refuses(Code.NOT_FOUND, closed::fork, id);
    refuses(
        Code.NOT_FOUND,
        () -> {
          try (PrefillStream stream = closed.prefill()) {
            stream.finish(1);
          }
        },
        id);
  }
}
