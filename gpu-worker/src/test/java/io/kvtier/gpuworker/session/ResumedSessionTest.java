package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.common.util.concurrent.MoreExecutors;
import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PageTransport;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Codec;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.Ancestor;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import io.kvtier.v1.TokenRange;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** A session that is read back from its pages goes on as if nothing had happened. */
class ResumedSessionTest {
  private static final int LAYERS = 2;
  private static final int KV_ROW = 128;
  private static final int Q_ROW = 256;
  private static final int PROMPT = 700;
  private static final int STEPS = 150;

  /** Whole pages that have left the window after the prompt and all steps. */
  private static final int PAGES = (PROMPT + STEPS - 64) / 64;

  private final CpuDevice device = new CpuDevice(64L << 20);
  private FaultyTransport tier = tier(Codec.ROT4);
  private final ExecutorService background = MoreExecutors.newDirectExecutorService();
  private final SplittableRandom random = new SplittableRandom(5);
  private final float[][] keys = new float[LAYERS][];
  private final float[][] values = new float[LAYERS][];
  private final float[][] queries = new float[LAYERS][];

  ResumedSessionTest() {
    int tokens = PROMPT + STEPS + 64;
    for (int layer = 0; layer < LAYERS; layer++) {
      keys[layer] = gaussian(tokens * KV_ROW);
      values[layer] = gaussian(tokens * KV_ROW);
      queries[layer] = gaussian(tokens * Q_ROW);
    }
  }

  private static FaultyTransport tier(Codec codec) {
    return new FaultyTransport(new PageLayout(codec, codec, 2, 64));
  }

  private static Session ofEightBits(Session info) {
    return info.toBuilder().setGeometry(info.getGeometry().toBuilder().setCodeBits(8)).build();
  }

  private float[] gaussian(int length) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    return x;
  }

  @AfterEach
  void nothingIsLeftOnTheDevice() {
    background.close();
    assertThat(device.memory().bytesUsed()).isZero();
    device.close();
  }

  private static Session info(HeadClass headClass, Dtype dtype) {
    Geometry geometry =
        Geometry.newBuilder()
            .setLayers(LAYERS)
            .setQHeads(4)
            .setKvHeads(2)
            .setHeadDim(64)
            .setKvDtype(dtype)
            .setModelFingerprint(ByteString.copyFromUtf8("0123456789abcdef"))
            .build();
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64).setHotSetBytes(0);
    for (int i = 0; i < 4; i++) {
      HeadPlan.Builder head =
          HeadPlan.newBuilder().setLayer(i / 2).setKvHead(i % 2).setHeadClass(headClass);
      if (headClass == HeadClass.HEAD_CLASS_SPARSE) {
        head.setDominantTokensMax(128).setResidualMass(.01f);
      }
      plan.addHeads(head);
    }
    return Session.newBuilder()
        .setSessionId(UUID.randomUUID().toString())
        .setEpoch(1)
        .setGeometry(geometry)
        .setTokensMax(5000)
        .setPlan(plan)
        .build();
  }

  private SessionHost host() {
    SessionLimits limits = new SessionLimits(1 << 20, 2_000_000_000L);
    return new SessionHost(
        device, tier, background, limits, new PendingBytes(16 << 20), StepListener.NONE);
  }

  private static float[] rows(float[] of, int row, int from, int count) {
    return Arrays.copyOfRange(of, from * row, (from + count) * row);
  }

  private void append(WorkerSession session, int layer, int from, int count) {
    float[] k = rows(keys[layer], KV_ROW, from, count);
    float[] v = rows(values[layer], KV_ROW, from, count);
    assertThat(session.append(layer, from, count, k, v)).isEqualTo(from + count);
  }

  private TokenStep step(int layer, int position) {
    return new TokenStep(
        layer,
        position,
        1,
        rows(queries[layer], Q_ROW, position, 1),
        rows(keys[layer], KV_ROW, position, 1),
        rows(values[layer], KV_ROW, position, 1),
        new float[0],
        new int[0],
        null);
  }

  /** Decodes from one token to another; the last outputs, by layer. */
  private float[][] decode(WorkerSession session, int from, int to) {
    float[][] last = new float[LAYERS][];
    for (int position = from; position < to; position++) {
      for (int layer = 0; layer < LAYERS; layer++) {
        last[layer] = session.step(step(layer, position)).output();
      }
    }
    return last;
  }

  private WorkerSession decoded(Session info) {
    WorkerSession session = SessionOpening.open(info, Prefix.NONE, host());
    for (int layer = 0; layer < LAYERS; layer++) {
      append(session, layer, 0, PROMPT);
    }
    assertThat(session.finish(PROMPT, (i, t, c, f, d) -> i.getPlan())).isEqualTo(info.getPlan());
    var _ = decode(session, PROMPT, PROMPT + STEPS);
    return session;
  }

  private WorkerSession resumed(Session info) {
    return SessionOpening.resume(info.toBuilder().setEpoch(2).build(), Prefix.NONE, host());
  }

  private void replay(WorkerSession session, int to) {
    for (int layer = 0; layer < LAYERS; layer++) {
      int have = session.tokens(layer);
      append(session, layer, have, to - have);
    }
  }

  /** Generated tokens come back from their pages as the prompt's do, and sinks to the bit. */
  @ParameterizedTest
  @CsvSource({
    "HEAD_CLASS_SPARSE, DTYPE_BF16",
    "HEAD_CLASS_SPARSE, DTYPE_FP32",
    "HEAD_CLASS_DENSE, DTYPE_BF16",
    "HEAD_CLASS_STREAMED, DTYPE_BF16"
  })
  void goesOnToTheBit(HeadClass headClass, Dtype dtype) {
    requireThatItGoesOn(info(headClass, dtype));
  }

  @ParameterizedTest
  @CsvSource({"HEAD_CLASS_SPARSE", "HEAD_CLASS_DENSE", "HEAD_CLASS_STREAMED"})
  void goesOnToTheBitFromPagesOfEightBits(HeadClass headClass) {
    tier = tier(Codec.ROT8);
    requireThatItGoesOn(ofEightBits(info(headClass, Dtype.DTYPE_BF16)));
  }

  private void requireThatItGoesOn(Session info) {
    WorkerSession first = decoded(info);
    WorkerSession second = resumed(info);
    assertThat(second.layerTokens()).containsOnly(PAGES * 64);
    assertThat(second.durableTokens(1)).isEqualTo(PAGES * 64);
    replay(second, PROMPT + STEPS);
    int end = PROMPT + STEPS;
    float[][] expected = decode(first, end, end + 64);
    float[][] actual = decode(second, end, end + 64);
    assertThat(actual[0]).isEqualTo(expected[0]);
    assertThat(actual[1]).isEqualTo(expected[1]);
    first.leave();
    second.close();
    assertThat(tier.pages).isEmpty();
  }

  @Test
  void layersThatDecodeComeBackWithAsManyTokens() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, Dtype.DTYPE_BF16);
    WorkerSession first = decoded(info);
    first.leave();
    PageKey gone = ofLayer(1, 5);
    assertThat(tier.pages.remove(gone)).isNotNull();
    WorkerSession second = resumed(info);
    assertThat(second.layerTokens()).containsExactly(320, 320);
    second.close();
  }

  private PageKey ofLayer(int layer, int page) {
    return tier.pages.keySet().stream()
        .filter(key -> key.layer() == layer && key.pageIndex() == page)
        .filter(key -> key.keyCodecId() == Codec.ROT4.id())
        .findFirst()
        .orElseThrow();
  }

  @Test
  void withoutItsSinksALayerHasNothing() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, Dtype.DTYPE_BF16);
    decoded(info).leave();
    assertThat(
            tier.pages
                .keySet()
                .removeIf(key -> key.layer() == 0 && key.keyCodecId() == Codec.RAW16.id()))
        .isTrue();
    WorkerSession second = resumed(info);
    assertThat(second.layerTokens()).containsOnly(0);
    second.close();
  }

  @Test
  void aForkComesBackFromItsAncestorsPagesAndLeavesThemAlone() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, Dtype.DTYPE_BF16);
    WorkerSession parent = decoded(info);
    Session child = info.toBuilder().setSessionId(UUID.randomUUID().toString()).build();
    WorkerSession fork = parent.fork(child);
    assertThat(fork.sharedTokens()).isEqualTo(PAGES * 64);
    int end = PROMPT + STEPS;
    var _ = decode(fork, end, end + 64);
    fork.leave();
    parent.leave();
    int pages = tier.pages.size();
    Session known =
        child.toBuilder()
            .addAncestors(
                Ancestor.newBuilder().setSessionId(info.getSessionId()).setTokens(PAGES * 64))
            .build();
    WorkerSession again = resumed(known);
    assertThat(again.layerTokens()).containsOnly((PAGES + 1) * 64);
    again.close();
    assertThat(tier.pages).hasSize(pages - LAYERS);
  }

  @Test
  void calledByAnOldEpochItRefuses() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, Dtype.DTYPE_BF16);
    WorkerSession session = decoded(info);
    assertThat(session.raiseEpoch(2)).containsOnly(PROMPT + STEPS);
    refused(Code.PRECONDITION, () -> session.inEpoch(1, () -> session.tokens(0)));
    refused(Code.PRECONDITION, () -> session.raiseEpoch(2));
    assertThat(session.inEpoch(2, () -> session.tokens(0))).isEqualTo(PROMPT + STEPS);
    session.close();
  }

  @Test
  void aStepSentAgainIsAnsweredAlikeAndAppendedOnce() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, Dtype.DTYPE_BF16);
    WorkerSession session = decoded(info);
    int end = PROMPT + STEPS;
    StepResult served = session.step(step(0, end));
    var _ = session.raiseEpoch(2);
    assertThat(session.step(step(0, end)).output()).isEqualTo(served.output());
    assertThat(session.tokens(0)).isEqualTo(end + 1);
    TokenStep other = step(0, end);
    other.keys()[3] += 1;
    refused(Code.PRECONDITION, () -> session.step(other));
    refused(Code.PRECONDITION, () -> append(session, 0, end, 1));
    assertThat(session.tokens(0)).isEqualTo(end + 1);
    session.close();
  }

  @Test
  void treesThatWaitEndWithTheirEpoch() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, Dtype.DTYPE_BF16);
    WorkerSession session = decoded(info);
    int end = PROMPT + STEPS;
    TokenStep plain = step(0, end);
    TokenStep tree =
        new TokenStep(
            0,
            end,
            1,
            plain.queries(),
            plain.keys(),
            plain.values(),
            new float[0],
            new int[] {-1},
            null);
    StepResult served = session.step(tree);
    assertThat(session.step(tree).output()).as("sent again").isEqualTo(served.output());
    assertThat(session.raiseEpoch(2)[0]).isEqualTo(end);
    refused(Code.PRECONDITION, () -> session.accept(0, new int[] {0}));
    assertThat(session.step(tree).output()).isEqualTo(served.output());
    assertThat(session.accept(0, new int[] {0})).isEqualTo(end + 1);
    session.close();
  }

  /** Lost pages are told, and stored again of the same rows only; then all is as before. */
  @ParameterizedTest
  @CsvSource({"HEAD_CLASS_STREAMED", "HEAD_CLASS_SPARSE"})
  void lostPagesAreMadeAgain(HeadClass headClass) {
    Session info = info(headClass, Dtype.DTYPE_BF16);
    WorkerSession session = decoded(info);
    Map<PageKey, ByteString> before = Map.copyOf(tier.pages);
    WorkerSession twin = resumed(info);
    replay(twin, PROMPT + STEPS);
    int end = PROMPT + STEPS;
    float[] expected = twin.step(step(1, end)).output();
    tier.pages.clear();
    refused(Code.LOST, () -> session.step(step(1, end)));
    assertThat(session.missing(1))
        .containsExactly(range(0, 0, PAGES * 64), range(1, 0, PAGES * 64));
    float[] k = rows(keys[1], KV_ROW, 128, 64);
    float[] v = rows(values[1], KV_ROW, 128, 64);
    k[77] += 1;
    refused(Code.INVALID, () -> session.repair(1, 128, 64, k, v));
    refused(Code.INVALID, () -> session.repair(1, 100, 64, k, v));
    refused(Code.INVALID, () -> session.repair(1, PAGES * 64, 64, k, v));
    assertThat(tier.pages).isEmpty();
    for (TokenRange range : session.missing(0)) {
      assertThat(
              session.repair(
                  range.getLayer(),
                  range.getPosition(),
                  range.getTokens(),
                  rows(keys[range.getLayer()], KV_ROW, 0, PAGES * 64),
                  rows(values[range.getLayer()], KV_ROW, 0, PAGES * 64)))
          .isEqualTo(end);
    }
    assertThat(tier.pages).isEqualTo(before);
    assertThat(session.missing(0)).isEmpty();
    assertThat(session.step(step(1, end)).output()).isEqualTo(expected);
    assertThat(session.durableTokens(1)).isEqualTo(PAGES * 64);
    twin.leave();
    session.close();
  }

  private static TokenRange range(int layer, int position, int tokens) {
    return TokenRange.newBuilder().setLayer(layer).setPosition(position).setTokens(tokens).build();
  }

  /** What an earlier worker made of other tokens at the same place must not be taken for ours. */
  @Test
  void pagesOfTheSameNameAreReplaced() {
    Session info = info(HeadClass.HEAD_CLASS_STREAMED, Dtype.DTYPE_BF16);
    WorkerSession first = decoded(info);
    WorkerSession second = resumed(info);
    int end = PROMPT + STEPS;
    var _ = decode(first, end, end + 64);
    first.leave();
    ByteString stale = tier.pages.get(ofLayer(0, PAGES));
    // The engine was started again too, and goes on with other tokens from the last stored one on.
    for (int layer = 0; layer < LAYERS; layer++) {
      for (int i = PAGES * 64 * KV_ROW; i < keys[layer].length; i++) {
        keys[layer][i] = -keys[layer][i];
      }
    }
    replay(second, end);
    var _ = decode(second, end, end + 64);
    ByteString ours = tier.pages.get(ofLayer(0, PAGES));
    assertThat(ours).isNotNull().isNotEqualTo(stale);
    second.close();
  }

  @Test
  void aSessionThatHadOutgrownItsPlanFits() {
    Session info = info(HeadClass.HEAD_CLASS_DENSE, Dtype.DTYPE_BF16);
    long full;
    WorkerSession first = decoded(info);
    full = first.deviceBytes();
    first.leave();
    Session small = info.toBuilder().setDeviceBytesMax(full - 100_000).build();
    WorkerSession second = resumed(small);
    assertThat(second.layerTokens()).containsOnly(PAGES * 64);
    assertThat(second.deviceBytes()).isLessThan(full - 100_000);
    replay(second, PROMPT + STEPS);
    var _ = decode(second, PROMPT + STEPS, PROMPT + STEPS + 64);
    second.close();
  }

  @Test
  void theTierIsFoundWhereThePagesAre() {
    Session info = info(HeadClass.HEAD_CLASS_SPARSE, Dtype.DTYPE_BF16);
    decoded(info).leave();
    FaultyTransport empty = new FaultyTransport(new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64));
    SessionTiers tiers =
        new SessionTiers() {
          @Override
          public PageTransport tierFor(String placement) {
            return empty;
          }

          @Override
          public PageTransport tierHolding(String placement, List<PageKey> asked) {
            return tier.contains(asked).get(0) ? tier : empty;
          }
        };
    SessionLimits limits = new SessionLimits(1 << 20, 2_000_000_000L);
    try (SessionTable table =
        new SessionTable(device, tiers, 4, limits, new PendingBytes(16 << 20), StepListener.NONE)) {
      Session second = info.toBuilder().setEpoch(2).build();
      assertThat(table.resume(second, Prefix.NONE)).containsOnly(PAGES * 64);
      refused(Code.PRECONDITION, () -> table.resume(second, Prefix.NONE));
      assertThat(table.resume(info.toBuilder().setEpoch(3).build(), Prefix.NONE))
          .containsOnly(PAGES * 64);
      refused(Code.PRECONDITION, () -> table.require(info.getSessionId(), 2));
      table.detach(info.getSessionId(), 2, false);
      assertThat(table.size()).as("detached in an old epoch").isEqualTo(1);
      table.detach(info.getSessionId(), 3, true);
      assertThat(table.size()).isZero();
      assertThat(tier.pages).isNotEmpty();
    }
  }

  private static void refused(Code code, Runnable call) {
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(KvtierException.class, e -> assertThat(e.code()).isEqualTo(code));
  }
}
