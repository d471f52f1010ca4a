package io.kvtier.integration;

import static io.kvtier.integration.Synthetic.LAYERS;
import static io.kvtier.integration.Synthetic.Q_ROW;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PagesClient;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PrefixChain;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.DecodeResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/**
 * Prompts that begin alike share pages, through the public client, coordinator, worker and tier.
 */
class PrefixIT {
  private static final int PROMPT = 1000;

  /** Whole pages of the prompt that leave the window of 64 tokens. */
  private static final int PAGED = (PROMPT - 64) / 64 * 64;

  private static final int STEPS = 70;
  private static final int TOKENS_MAX = 1200;

  private static AllInOne service;
  private static KvtierClient client;

  @BeforeAll
  static void start() {
    service =
        AllInOne.start(
            CoordinatorConfig.defaults(),
            new CacheTierConfig(EndpointConfig.loopback(), 256L << 20, Optional.empty()),
            256L << 20);
    client = KvtierClient.connect(service.coordinator().target());
  }

  @AfterAll
  static void stop() {
    client.close();
    service.close();
  }

  private static List<Integer> ids(int from, int count) {
    return IntStream.range(from, from + count).boxed().toList();
  }

  private static SessionOptions options(List<Integer> ids) {
    return SessionOptions.of(Synthetic.geometry(), TOKENS_MAX).withTokenIds(ids);
  }

  /** Sends what the session does not have, with the same last queries for everybody. */
  private static void prefill(Synthetic model, KvSession session, float[][] windows) {
    int from = session.reusedTokens();
    try (PrefillStream stream = session.prefill()) {
      for (int layer = 0; layer < LAYERS; layer++) {
        stream.chunk(
            layer,
            from,
            PROMPT - from,
            model.keys(layer, from, PROMPT),
            model.values(layer, from, PROMPT));
        stream.queries(layer, 32, windows[layer]);
      }
      var _ = stream.finish(PROMPT);
    }
  }

  private static float[][] windows(Synthetic model) {
    float[][] windows = new float[LAYERS][32 * Q_ROW];
    for (float[] window : windows) {
      for (int i = 0; i < 32; i++) {
        System.arraycopy(model.query(), 0, window, i * Q_ROW, Q_ROW);
      }
    }
    return windows;
  }

  /** Outputs and LSEs of steps that page out once more. */
  private static List<ByteString> decode(Synthetic model, KvSession session, float[][] queries) {
    List<ByteString> outputs = new ArrayList<>();
    float[] output = new float[Q_ROW];
    try (DecodeStream stream = session.decode()) {
      for (int step = 0; step < STEPS; step++) {
        for (int layer = 0; layer < LAYERS; layer++) {
          DecodeResponse response = model.step(stream, layer, PROMPT + step, queries[step], output);
          outputs.add(response.getOutput().getData());
          outputs.add(response.getLse().getData());
        }
      }
    }
    return outputs;
  }

  private static void requireSame(List<ByteString> actual, List<ByteString> expected) {
    assertThat(actual).hasSameSizeAs(expected);
    for (int i = 0; i < expected.size(); i++) {
      assertThat(actual.get(i)).as("tensor %d", i).isEqualTo(expected.get(i));
    }
  }

  private static float[][] queries(Synthetic model) {
    float[][] queries = new float[STEPS][];
    for (int step = 0; step < STEPS; step++) {
      queries[step] = model.query();
    }
    return queries;
  }

  private static void await(String what, BooleanSupplier condition) {
    long deadlineNs = System.nanoTime() + Duration.ofSeconds(10).toNanos();
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).as(what + " within 10 s").isLessThan(deadlineNs);
      Thread.onSpinWait();
    }
  }

  private static int stored(List<Integer> ids) {
    return client.lookupPrefix(Synthetic.geometry(), ids);
  }

  @Test
  void aSecondSessionSendsOnlyItsTailAndAnswersToTheBit() {
    Synthetic model = new Synthetic(21, TOKENS_MAX);
    float[][] windows = windows(model);
    float[][] queries = queries(model);
    List<Integer> ids = ids(5000, PROMPT);
    List<ByteString> first;
    long tierBytes;
    try (KvSession session = client.open(options(ids))) {
      assertThat(session.reusedTokens()).isZero();
      prefill(model, session, windows);
      first = decode(model, session, queries);
      await("the prompt's pages are known", () -> stored(ids) == PAGED + 64);
      tierBytes = service.tier().tier().bytesUsed();
      try (KvSession second = client.open(options(ids))) {
        assertThat(second.reusedTokens()).isEqualTo(PAGED);
        prefill(model, second, windows);
        assertThat(service.tier().tier().bytesUsed()).as("stored once").isEqualTo(tierBytes);
        requireSame(decode(model, second, queries), first);
      }
    }
    // Both are closed: what they share stays, what was theirs alone is gone.
    try (KvSession third = client.open(options(ids))) {
      assertThat(third.reusedTokens()).isEqualTo(PAGED);
      prefill(model, third, windows);
      try (KvSession fork = third.fork()) {
        requireSame(decode(model, fork, queries), first);
      }
      requireSame(decode(model, third, queries), first);
    }
  }

  @Test
  void promptsShareAsFarAsTheyAreAlike() {
    Synthetic model = new Synthetic(22, TOKENS_MAX);
    List<Integer> ids = ids(9000, PROMPT);
    try (KvSession session = client.open(options(ids))) {
      prefill(model, session, windows(model));
      await("the prompt's pages are known", () -> stored(ids) >= PAGED);
    }
    List<Integer> other = new ArrayList<>(ids);
    other.set(300, 1);
    try (KvSession session = client.open(options(other))) {
      assertThat(session.reusedTokens()).isEqualTo(256);
    }
    try (KvSession session = client.open(options(ids.subList(0, 200)))) {
      assertThat(session.reusedTokens()).as("the window is sent anew").isEqualTo(128);
    }
  }

  @Test
  void anotherTenantNeitherHitsNorProbes() {
    Synthetic model = new Synthetic(23, TOKENS_MAX);
    List<Integer> ids = ids(13000, PROMPT);
    try (KvSession session = client.open(options(ids))) {
      prefill(model, session, windows(model));
      await("the prompt's pages are known", () -> stored(ids) >= PAGED);
    }
    try (KvtierClient stranger =
            KvtierClient.connect(
                service.coordinator().target(), KvtierClient.DEFAULT_TIMEOUT, "stranger");
        KvSession session = stranger.open(options(ids))) {
      assertThat(session.reusedTokens()).isZero();
      assertThat(stranger.lookupPrefix(Synthetic.geometry(), ids)).isZero();
    }
    assertThatThrownBy(() ->
            KvtierClient.connect(
                service.coordinator().target(), KvtierClient.DEFAULT_TIMEOUT, "no name"))
        .isInstanceOf(KvtierException.class)
        .hasMessage("tenant is 'no name'; it must be 1..64 characters of A-Z a-z 0-9 . _ -");
  }

  /** Two engines' rows for the same tokens differ: nobody reads parts of one with the other's. */
  @Test
  void otherBytesForTheSameTokensAreOtherPages() {
    Synthetic model = new Synthetic(24, TOKENS_MAX);
    Synthetic other = new Synthetic(25, TOKENS_MAX);
    float[][] windows = windows(model);
    float[][] queries = queries(model);
    List<Integer> ids = ids(17000, PROMPT);
    List<ByteString> alone;
    try (KvSession session = client.open(SessionOptions.of(Synthetic.geometry(), TOKENS_MAX))) {
      prefill(other, session, windows);
      alone = decode(other, session, queries);
    }
    // Opened before either has stored anything, so that both send the whole prompt.
    try (KvSession first = client.open(options(ids));
        KvSession second = client.open(options(ids))) {
      prefill(model, first, windows);
      prefill(other, second, windows);
      var _ = decode(model, first, queries);
      requireSame(decode(other, second, queries), alone);
    }
  }

  @Test
  void aPageThatHasGoneIsAMissAndThePromptIsSentAnew() {
    Synthetic model = new Synthetic(26, TOKENS_MAX);
    float[][] windows = windows(model);
    float[][] queries = queries(model);
    List<Integer> ids = ids(21000, PROMPT);
    List<ByteString> first;
    try (KvSession session = client.open(options(ids))) {
      prefill(model, session, windows);
      first = decode(model, session, queries);
      await("the prompt's pages are known", () -> stored(ids) >= PAGED);
    }
    Fingerprint fingerprint = Fingerprint.of(Synthetic.geometry().getModelFingerprint());
    PrefixChain chain =
        PrefixChain.of("default", fingerprint, ids.stream().mapToInt(Integer::intValue).toArray());
    try (PagesClient tier =
        new PagesClient(service.tier().tier().target(), Duration.ofSeconds(10))) {
      List<PageKey> held = PrefixPages.keysOf(service.tier().tier().target(), chain, 5);
      assertThat(held).hasSize(LAYERS);
      tier.delete(held);
    }
    // The coordinator may or may not have heard of it yet: at most the pages before are reused.
    try (KvSession session = client.open(options(ids))) {
      assertThat(session.reusedTokens()).isIn(0, 5 * 64);
      prefill(model, session, windows);
      requireSame(decode(model, session, queries), first);
    }
  }
}
