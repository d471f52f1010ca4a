package io.kvtier.integration;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.kvtier.KvtierException;
import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.client.PagesClient;
import io.kvtier.client.PrefillStream;
import io.kvtier.client.SessionOptions;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.ClusterGrpc;
import io.kvtier.v1.DrainRequest;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.PinResponse;
import io.kvtier.v1.WatchRequest;
import io.kvtier.v1.WatchResponse;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Prompts that are pinned and tiers that are drained, with services that are processes. */
@Timeout(value = 5, unit = TimeUnit.MINUTES)
class PinDrainIT {
  private static final int TOKENS = 1000;
  private static final int TOKENS_MAX = 1400;

  /** Whole pages of the prompt that have left the window. */
  private static final int STORED = 14 * 64;

  private static final Duration TIMEOUT = Duration.ofSeconds(20);
  private static final Duration SOON = Duration.ofSeconds(60);
  private static final PageLayout LARGE = new PageLayout(Codec.RAW16, Codec.RAW16, 8, 128);
  private static final Fingerprint OTHERS = new Fingerprint(3, 4);

  @TempDir private Path data;

  private final Closing started = new Closing();

  @SuppressWarnings("NullAway.Init") // Started by each test.
  private ProcessCluster cluster;

  @SuppressWarnings("NullAway.Init")
  private KvtierClient client;

  private int strangers;

  private void start(int tierCount, int replicas) throws Exception {
    cluster = started.add(new ProcessCluster(data, replicas, "--no-rehearsal"));
    cluster.startAll(1, tierCount, 1);
    client = cluster.connect(TIMEOUT);
  }

  @AfterEach
  void endAll() {
    started.close();
  }

  private static List<Integer> prompt(int number) {
    return IntStream.range(0, TOKENS).map(i -> 7 * i + number).boxed().toList();
  }

  /** First tokens of a prompt that the coordinator knows to be stored; none while it is away. */
  private int stored(List<Integer> prompt) {
    try {
      return client.lookupPrefix(Synthetic.geometry(), prompt);
    } catch (KvtierException e) {
      assertThat(e.code()).isEqualTo(KvtierException.Code.UNAVAILABLE);
      return 0;
    }
  }

  private static void await(String what, Callable<Boolean> reached) throws Exception {
    long deadlineNs = System.nanoTime() + SOON.toNanos();
    while (!reached.call()) {
      assertThat(System.nanoTime()).as(what).isLessThan(deadlineNs);
      TimeUnit.MILLISECONDS.sleep(20);
    }
  }

  private void store(Synthetic model, List<Integer> prompt) throws Exception {
    SessionOptions options =
        SessionOptions.of(Synthetic.geometry(), TOKENS_MAX).withTokenIds(prompt);
    try (KvSession session = client.open(options)) {
      prefill(model, session);
    }
    await("stored pages are known", () -> stored(prompt) >= STORED);
  }

  private static void prefill(Synthetic model, KvSession session) {
    int from = session.reusedTokens();
    try (PrefillStream stream = session.prefill()) {
      for (int layer = 0; layer < Synthetic.LAYERS; layer++) {
        for (int at = from; at < TOKENS; at += 250) {
          int to = Math.min(TOKENS, at + 250);
          stream.chunk(layer, at, to - at, model.keys(layer, at, to), model.values(layer, at, to));
        }
      }
      var _ = stream.finish(TOKENS);
    }
  }

  /** Puts as many bytes of others as a tier holds, and some more. */
  private void fillUp(String tierId) {
    try (PagesClient stranger = new PagesClient(cluster.tier(tierId).target, TIMEOUT)) {
      for (int bytes = 0; bytes < 80 << 20; bytes += LARGE.pageLength()) {
        UnsafeBuffer page = new UnsafeBuffer(new byte[LARGE.pageLength()]);
        Pages.seal(page, 0, LARGE, new PageIdentity(OTHERS, 0, 0, PageLayout.TOKENS));
        PageKey key = PageKey.ofSession(new UUID(9, 9), strangers++, OTHERS, 0, LARGE);
        stranger.put(List.of(new KeyedPage(key, ByteString.copyFrom(page.byteArray()))));
      }
    }
  }

  @Test
  void aPinnedPromptOutlastsEverybodysPagesUntilItIsUnpinnedOrItsTimeIsOver() throws Exception {
    start(1, 1);
    Synthetic model = new Synthetic(31, TOKENS);
    List<Integer> pinned = prompt(1);
    List<Integer> brief = prompt(2);
    List<Integer> free = prompt(3);
    for (List<Integer> each : List.of(pinned, brief, free)) {
      store(model, each);
    }
    PinResponse pin = client.pin(Synthetic.geometry(), pinned, Duration.ofHours(1));
    assertThat(pin.getTokens()).isGreaterThanOrEqualTo(STORED);
    var _ = client.pin(Synthetic.geometry(), brief, Duration.ofSeconds(1));
    assertThat(cluster.tier("tier-0").metric("kvtier_tier_pinned_keys")).isPositive();
    try (KvtierClient stranger = KvtierClient.connect(cluster.targets(), TIMEOUT, "stranger")) {
      assertThatThrownBy(() -> stranger.unpin(pin.getPinId())).isInstanceOf(KvtierException.class);
    }
    await("its end", () -> cluster.coordinator("c0").metric("kvtier_coordinator_pins") == 1);
    await("its lease too", () -> cluster.tier("tier-0").metric("kvtier_tier_leases") == 1);

    fillUp("tier-0");
    await("what nobody pins goes", () -> stored(free) == 0 && stored(brief) == 0);
    assertThat(stored(pinned)).isGreaterThanOrEqualTo(STORED);

    // Also by a coordinator that was started again.
    cluster.killCoordinator("c0");
    cluster.startCoordinator("c0");
    await("the tier has told", () -> stored(pinned) >= STORED);
    fillUp("tier-0");
    assertThat(stored(pinned)).isGreaterThanOrEqualTo(STORED);
    SessionOptions options =
        SessionOptions.of(Synthetic.geometry(), TOKENS_MAX).withTokenIds(pinned);
    await("a worker has joined again", () -> opens(options));
    try (KvSession session = client.open(options)) {
      assertThat(session.reusedTokens()).isGreaterThanOrEqualTo(STORED - 64);
      prefill(model, session);
    }

    // What was read of them may still outlast what nobody reads.
    client.unpin(pin.getPinId());
    await("no lease", () -> cluster.tier("tier-0").metric("kvtier_tier_leases") == 0);
    assertThat(cluster.tier("tier-0").metric("kvtier_tier_pinned_keys")).isZero();
    assertThat(cluster.coordinator("c0").metric("kvtier_coordinator_pins")).isZero();
  }

  private boolean opens(SessionOptions options) {
    try {
      client.open(options).close();
      return true;
    } catch (KvtierException e) {
      assertThat(e.code()).isEqualTo(KvtierException.Code.UNAVAILABLE);
      return false;
    }
  }

  private void drain(String nodeId, boolean undo) {
    ManagedChannel channel = Channels.open(cluster.targets());
    try {
      var _ =
          ClusterGrpc.newBlockingStub(channel)
              .withDeadlineAfter(TIMEOUT.toMillis(), TimeUnit.MILLISECONDS)
              .drain(DrainRequest.newBuilder().setNodeId(nodeId).setUndo(undo).build());
    } finally {
      Channels.close(channel);
    }
  }

  private double pages(String tierId) throws Exception {
    return cluster.tier(tierId).metric("kvtier_tier_stored_pages");
  }

  /** What a tier stores. */
  private Set<ByteString> keys(String tierId) {
    ManagedChannel channel = Channels.open(cluster.tier(tierId).target);
    Set<ByteString> keys = new HashSet<>();
    try {
      Iterator<WatchResponse> messages =
          PagesGrpc.newBlockingStub(channel)
              .withDeadlineAfter(TIMEOUT.toMillis(), TimeUnit.MILLISECONDS)
              .watch(WatchRequest.getDefaultInstance());
      WatchResponse message;
      do {
        message = messages.next();
        keys.addAll(message.getKeysList());
      } while (!message.getSnapshotEnds());
      return keys;
    } finally {
      Channels.close(channel);
    }
  }

  private Set<ByteString> allKeys() {
    Set<ByteString> all = new HashSet<>();
    cluster.tierIds().forEach(id -> all.addAll(keys(id)));
    assertThat(all).hasSizeGreaterThan(14);
    return all;
  }

  /** A slow start may have made more copies than two, so copies cannot be counted. */
  private void awaitAll(Set<ByteString> all, String... tierIds) throws Exception {
    for (String id : tierIds) {
      await("all pages are on " + id, () -> keys(id).containsAll(all));
    }
  }

  /** Decodes tokens of all layers; the mean error is the codec's and the choice's. */
  private static void decode(Synthetic model, KvSession session, int from, int to) {
    double error = 0;
    try (DecodeStream stream = session.decode()) {
      for (int position = from; position < to; position++) {
        for (int layer = 0; layer < Synthetic.LAYERS; layer++) {
          float[] query = model.query();
          float[] output = new float[Synthetic.Q_ROW];
          var _ = model.step(stream, layer, position, query, output);
          error += Synthetic.relativeError(output, model.exact(layer, position + 1, query));
        }
      }
    }
    assertThat(error / ((to - from) * Synthetic.LAYERS)).isLessThan(.5);
  }

  /** What it has it serves on; what is new goes elsewhere, until it is drained no more. */
  @Test
  void aTierThatDrainsServesWhatItHasAndTakesNothing() throws Exception {
    start(2, 1);
    Synthetic model = new Synthetic(32, TOKENS_MAX);
    SessionOptions options = SessionOptions.of(Synthetic.geometry(), TOKENS_MAX);
    KvSession old = client.open(options);
    prefill(model, old);
    String home = pages("tier-0") > 0 ? "tier-0" : "tier-1";
    String other = home.equals("tier-0") ? "tier-1" : "tier-0";
    double before = pages(home);
    assertThat(before).isPositive();
    drain(home, false);
    for (int i = 0; i < 8; i++) {
      KvSession session = client.open(options);
      prefill(model, session);
      decode(model, session, TOKENS, TOKENS + 3);
    }
    assertThat(pages(home)).isEqualTo(before);
    assertThat(pages(other)).isGreaterThan(8 * 14);
    decode(model, old, TOKENS, TOKENS + 20);
    drain(home, true);
    // Of so many sessions one goes there, but for one chance in 2^16.
    for (int i = 0; i < 16; i++) {
      prefill(model, client.open(options));
    }
    assertThat(pages(home)).isGreaterThan(before);
  }

  /** Its pages get their second copy elsewhere, so it may end without anybody's noticing. */
  @Test
  void aReplicatedTierThatDrainedMayEnd() throws Exception {
    start(3, 2);
    Synthetic model = new Synthetic(33, TOKENS_MAX);
    KvSession session = client.open(SessionOptions.of(Synthetic.geometry(), TOKENS_MAX));
    prefill(model, session);
    Set<ByteString> all = allKeys();
    assertThat(keys("tier-0")).isNotEmpty();
    drain("tier-0", false);
    awaitAll(all, "tier-1", "tier-2");
    cluster.killTier("tier-0");
    cluster.killTier("tier-1");
    decode(model, session, TOKENS, TOKENS + 30);
    session.close();
  }

  /** Also pages both of whose copies drain: they are read there, and get two copies elsewhere. */
  @Test
  void twoReplicatedTiersMayDrainAtOnce() throws Exception {
    start(4, 2);
    Synthetic model = new Synthetic(34, TOKENS_MAX);
    KvSession session = client.open(SessionOptions.of(Synthetic.geometry(), TOKENS_MAX));
    prefill(model, session);
    Set<ByteString> all = allKeys();
    drain("tier-0", false);
    drain("tier-1", false);
    decode(model, session, TOKENS, TOKENS + 20);
    awaitAll(all, "tier-2", "tier-3");
    cluster.killTier("tier-0");
    cluster.killTier("tier-1");
    decode(model, session, TOKENS + 20, TOKENS + 50);
    session.close();
  }
}
