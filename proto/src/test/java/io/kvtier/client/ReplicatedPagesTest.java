package io.kvtier.client;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.FakeNode.Fault;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.replica.Rendezvous;
import io.kvtier.replica.ReplicaConfig;
import io.kvtier.replica.ReplicaCounts.Count;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.TimeUnit;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Replicated pages on nodes that fail: with threads, and real time only as a bound. */
@Timeout(60)
class ReplicatedPagesTest {
  private static final PageLayout LAYOUT = new PageLayout(Codec.ROT4, Codec.ROT4, 1, 16);
  private static final Fingerprint MODEL = new Fingerprint(7, 8);
  private static final UUID SESSION = new UUID(1, 2);
  private static final int PAGES = 30;

  private final Map<String, FakeNode> nodes = new ConcurrentSkipListMap<>();
  private volatile Rendezvous members = new Rendezvous(0, List.of());
  private final List<KeyedPage> pages = new ArrayList<>();

  @SuppressWarnings("NullAway.Init") // Each test opens it.
  private ReplicatedPages replicated;

  @AfterEach
  void close() {
    nodes.values().forEach(node -> node.release.countDown());
    replicated.close();
  }

  /** Attends to all pages; fails unless the partial is the mean of them all. */
  private NearPages.Attended attend() {
    long[] tokens = new long[PAGES];
    for (int i = 0; i < PAGES; i++) {
      tokens[i] = i + 1L;
    }
    NearPages.Queries queries = new NearPages.Queries(List.of(0), 1, 16, new float[16]);
    return replicated.attend(keys(), queries, tokens).orElseThrow();
  }

  private void requireWhole(NearPages.Attended attended) {
    double mean = keys().stream().mapToDouble(FakeNode::valueOf).average().orElseThrow();
    assertThat(attended.misses()).isEmpty();
    assertThat(attended.output()[0]).isEqualTo((float) mean, within(.01f));
    assertThat(attended.lse()[0]).isEqualTo((float) Math.log(PAGES), within(1e-4f));
    long tokens = 0;
    for (int i = 0; i < PAGES; i++) {
      tokens += Long.bitCount(i + 1);
    }
    assertThat(attended.tokens()).isEqualTo(tokens);
  }

  @Test
  void pagesAreAttendedToWhereTheyAreWhoeverFails() {
    open(3, ReplicaConfig.of(2, 2, Duration.ofSeconds(10)));
    replicated.put(pages);
    requireWhole(attend());
    node("tier-1").fault = Fault.DOWN;
    requireWhole(attend());
    // Its pages are asked for elsewhere at once, since it has just failed.
    requireWhole(attend());
    node("tier-1").fault = Fault.NONE;
    node("tier-2").pages.clear();
    requireWhole(attend());
    node("tier-0").fault = Fault.BUSY;
    assertThatThrownBy(this::attend)
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED));
    node("tier-0").fault = Fault.NONE;
    nodes.values().forEach(node -> node.pages.remove(keys().get(7)));
    assertThat(attend().misses()).singleElement().matches(miss -> miss.getIndex() == 7);
    nodes.values().forEach(node -> node.fault = Fault.DOWN);
    assertThatThrownBy(this::attend)
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.UNAVAILABLE));
  }

  private void open(int nodeCount, ReplicaConfig config) {
    for (int i = 0; i < nodeCount; i++) {
      nodes.put("tier-" + i, new FakeNode());
    }
    join(1);
    replicated = new ReplicatedPages(() -> members, this::node, config);
    for (int i = 0; i < PAGES; i++) {
      UnsafeBuffer page = new UnsafeBuffer(new byte[LAYOUT.pageLength()]);
      page.putInt(LAYOUT.offset(0, io.kvtier.page.Section.V_MEAN), i + 1);
      Pages.seal(page, 0, LAYOUT, new PageIdentity(MODEL, 0, 64 * i, PageLayout.TOKENS));
      pages.add(
          new KeyedPage(
              PageKey.ofSession(SESSION, i, MODEL, 0, LAYOUT),
              ByteString.copyFrom(page.byteArray())));
    }
  }

  private void join(long epoch) {
    members = new Rendezvous(epoch, nodes.keySet());
  }

  private FakeNode node(String id) {
    return Objects.requireNonNull(nodes.get(id), id);
  }

  private static ReplicaConfig config(int replicas, int acks) {
    return ReplicaConfig.of(replicas, acks, Duration.ofSeconds(8));
  }

  private List<PageKey> keys() {
    return pages.stream().map(KeyedPage::key).toList();
  }

  private FakeNode home(PageKey key, int rank) {
    return node(members.homes(key, nodes.size()).get(rank));
  }

  private void requireAllRead() {
    List<ByteString> read = new ArrayList<>();
    replicated.get(
        keys(),
        (page, index) -> {
          assertThat(index).isEqualTo(read.size());
          read.add(page);
        });
    assertThat(read).isEqualTo(pages.stream().map(KeyedPage::page).toList());
    List<ByteString> parts = new ArrayList<>();
    replicated.getSections(
        keys().stream()
            .map(key -> SectionsOf.newBuilder().setKey(key.toByteString()).build())
            .toList(),
        (data, index) -> {
          assertThat(index).isEqualTo(parts.size());
          parts.add(data);
        });
    assertThat(parts).isEqualTo(read.stream().map(page -> page.substring(0, 100)).toList());
    List<ByteString> rows = new ArrayList<>();
    replicated.readRows(
        LAYOUT,
        keys().stream().map(key -> RowsOf.newBuilder().setKey(key.toByteString()).build()).toList(),
        (bytes, offset, length, index) -> {
          assertThat(index).isEqualTo(rows.size());
          rows.add(PagesClient.copy(bytes, offset, length));
        });
    assertThat(rows).isEqualTo(read.stream().map(page -> page.substring(100, 150)).toList());
  }

  private static void await(BlockingQueue<PageKey> queue, PageKey wanted)
      throws InterruptedException {
    PageKey came;
    do {
      came = queue.poll(20, TimeUnit.SECONDS);
      assertThat(came).as("%s never came", wanted).isNotNull();
    } while (!came.equals(wanted));
  }

  @ParameterizedTest
  @EnumSource(
      value = Fault.class,
      names = {"NONE", "DOWN", "CRASHES", "DUPLICATES", "SHORT", "HOLDS"})
  void readsAreRightWhateverOneNodeDoes(Fault fault) {
    open(3, config(2, 2));
    replicated.put(pages);
    node("tier-1").fault = fault;
    requireAllRead();
    requireAllRead();
    long failOvers = replicated.counts().get(Count.FAIL_OVERS);
    assertThat(failOvers > 0).as("%d fail-overs", failOvers).isEqualTo(fault != Fault.NONE);
    assertThat(replicated.counts().hits(0) + replicated.counts().hits(1)).isEqualTo(6L * PAGES);
  }

  @Test
  void flippedPagesAreNeverGivenAndAreRepaired() throws Exception {
    open(2, config(2, 2));
    replicated.put(pages);
    nodes.values().forEach(node -> node.stored.clear());
    node("tier-0").fault = Fault.FLIPS;
    List<ByteString> read = new ArrayList<>();
    replicated.get(keys(), (page, index) -> read.add(page));
    assertThat(read).isEqualTo(pages.stream().map(KeyedPage::page).toList());
    assertThat(replicated.counts().get(Count.FLAWED_ANSWERS)).isPositive();
    for (PageKey key : keys()) {
      if (home(key, 0) == node("tier-0")) {
        await(node("tier-0").stored, key);
      }
    }
    nodes.values().forEach(node -> node.fault = Fault.FLIPS);
    assertThatThrownBy(() -> replicated.get(keys(), (page, index) -> read.add(page)))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.LOST));
  }

  @Test
  void aPutReturnsAtItsAcksAndItsLastCopyArrivesBehindIt() throws Exception {
    open(2, config(2, 1));
    FakeNode held = node("tier-1");
    held.fault = Fault.HOLDS;
    replicated.put(pages);
    assertThat(node("tier-0").pages).hasSize(PAGES);
    assertThat(held.pages).isEmpty();
    held.release.countDown();
    await(held.stored, keys().getLast());
    assertThat(held.pages).hasSize(PAGES);
  }

  @Test
  void beyondTheBoundOfLateBytesAPutWaitsForAllItsCopies() throws Exception {
    ReplicaConfig config = config(2, 1);
    open(
        2,
        new ReplicaConfig(
            2,
            1,
            config.askTimeout(),
            config.timeout(),
            5,
            4,
            8,
            1,
            16,
            2,
            0,
            Duration.ofMillis(1)));
    FakeNode held = node("tier-1");
    held.fault = Fault.HOLDS;
    Thread putter = Thread.ofVirtual().start(() -> replicated.put(pages));
    await(node("tier-0").stored, keys().getLast());
    held.release.countDown();
    putter.join();
    assertThat(held.pages).hasSize(PAGES);
  }

  @Test
  void aDeleteOutlivesACopyThatIsUnderWay() throws Exception {
    open(2, config(2, 1));
    FakeNode held = node("tier-1");
    held.fault = Fault.HOLDS;
    replicated.put(pages);
    replicated.delete(keys());
    assertThat(node("tier-0").pages).isEmpty();
    await(held.deletes, keys().getLast());
    held.release.countDown();
    await(held.stored, keys().getLast());
    for (int i = 0; i < PAGES; i++) {
      assertThat(held.deletes.poll(20, TimeUnit.SECONDS)).isNotNull();
    }
    assertThat(held.pages).isEmpty();
  }

  @Test
  void aPutAfterADeleteIsNotTakenByWhatWasUnderWayBefore() throws Exception {
    open(2, config(2, 1));
    FakeNode held = node("tier-1");
    held.fault = Fault.HOLDS;
    replicated.put(pages);
    replicated.delete(keys());
    replicated.put(pages);
    held.release.countDown();
    for (int i = 0; i < 2 * PAGES; i++) {
      assertThat(held.stored.poll(20, TimeUnit.SECONDS)).isNotNull();
    }
    // Waits for whoever deletes these pages again.
    replicated.put(pages);
    assertThat(held.deletes).hasSize(PAGES);
    assertThat(held.pages).hasSize(PAGES);
    assertThat(node("tier-0").pages).hasSize(PAGES);
  }

  @Test
  void aReadThatADeleteOvertakesRepairsNothing() throws Exception {
    open(2, config(2, 2));
    replicated.put(pages);
    PageKey key = keys().get(3);
    FakeNode second = home(key, 1);
    home(key, 0).pages.remove(key);
    second.fault = Fault.HOLDS;
    Thread reader =
        Thread.ofVirtual().start(() -> replicated.get(List.of(key), (page, index) -> {}));
    while (replicated.counts().get(Count.FAIL_OVERS) == 0) {
      Thread.onSpinWait();
    }
    replicated.delete(List.of(key));
    // As if the delete had come to this node a little later.
    second.pages.put(key, pages.get(3).page());
    second.release.countDown();
    reader.join();
    assertThat(replicated.counts().hits(1)).isEqualTo(1);
    assertThat(replicated.counts().get(Count.REPAIRS_QUEUED)).isZero();
    assertThat(home(key, 0).pages).doesNotContainKey(key);
  }

  @Test
  void anotherNodeStandsInForAHomeThatIsSilent() throws Exception {
    open(
        3,
        new ReplicaConfig(
            2,
            2,
            Duration.ofMillis(50),
            Duration.ofSeconds(20),
            5,
            16,
            256,
            64L << 20,
            1 << 16,
            8,
            1 << 18,
            Duration.ofMillis(500)));
    FakeNode silent = node("tier-2");
    silent.fault = Fault.HOLDS;
    replicated.put(pages);
    assertThat(silent.pages).isEmpty();
    assertThat(node("tier-0").pages).hasSize(PAGES);
    assertThat(node("tier-1").pages).hasSize(PAGES);
    silent.release.countDown();
    awaitAll(
        silent,
        keys().stream().filter(key -> home(key, 0) == silent || home(key, 1) == silent).toList());
  }

  @Test
  void aNodeThatComesBackEmptyIsFilledAgain() throws Exception {
    open(2, config(2, 2));
    replicated.put(pages);
    requireAllRead();
    FakeNode again = node("tier-1");
    again.stored.clear();
    again.pages.clear();
    members = new Rendezvous(2, nodes.keySet(), Map.of("tier-1", 7L));
    awaitAll(again, keys());
  }

  @Test
  void aPageThatAHomeLacksIsCopiedThere() throws Exception {
    open(3, config(2, 2));
    replicated.put(pages);
    PageKey key = keys().get(5);
    FakeNode first = home(key, 0);
    first.pages.remove(key);
    first.stored.clear();
    requireAllRead();
    await(first.stored, key);
    assertThat(first.pages).containsEntry(key, pages.get(5).page());
    assertThat(replicated.counts().get(Count.REPAIRS_QUEUED)).isPositive();
  }

  @Test
  void aCopyThatAHomeRefusesIsMadeThereLater() throws Exception {
    open(3, config(2, 2));
    FakeNode full = node("tier-2");
    full.fault = Fault.FULL;
    replicated.put(pages);
    requireAllRead();
    assertThat(full.pages).isEmpty();
    full.fault = Fault.NONE;
    awaitAll(
        full, keys().stream().filter(key -> home(key, 0) == full || home(key, 1) == full).toList());
  }

  @Test
  void nodesThatJoinOrLeaveMakePagesMoveToTheirNewHomes() throws Exception {
    open(2, config(2, 2));
    replicated.put(pages);
    FakeNode joined = new FakeNode();
    nodes.put("tier-2", joined);
    join(2);
    requireAllRead();
    List<PageKey> itsShare =
        keys().stream().filter(key -> home(key, 0) == joined || home(key, 1) == joined).toList();
    assertThat(itsShare).isNotEmpty().hasSizeLessThan(PAGES);
    awaitAll(joined, itsShare);
    // Every page is on two of three; now one of the first two dies for good.
    nodes.remove("tier-0");
    join(3);
    requireAllRead();
    awaitAll(joined, keys());
    awaitAll(node("tier-1"), keys());
  }

  private static void awaitAll(FakeNode node, List<PageKey> keys) throws InterruptedException {
    while (!node.pages.keySet().containsAll(keys)) {
      assertThat(node.stored.poll(20, TimeUnit.SECONDS)).isNotNull();
    }
  }

  @Test
  void whatWasAcknowledgedByTwoSurvivesEitherOne() {
    open(2, config(2, 2));
    replicated.put(pages);
    for (FakeNode node : nodes.values()) {
      node.fault = Fault.DOWN;
      requireAllRead();
      // With one of two members not answering, no put can keep its promise.
      refused(Code.UNAVAILABLE, () -> replicated.put(pages));
      node.fault = Fault.NONE;
    }
    replicated.put(pages);
    nodes.values().forEach(node -> node.fault = Fault.DOWN);
    refused(Code.UNAVAILABLE, this::requireAllRead);
    refused(Code.UNAVAILABLE, () -> replicated.delete(keys()));
  }

  @Test
  void aPageThatNobodyHasIsLostAndAClosedOrEmptyClusterUnavailable() {
    open(2, config(2, 2));
    refused(Code.LOST, this::requireAllRead);
    members = new Rendezvous(2, List.of());
    refused(Code.UNAVAILABLE, () -> replicated.put(pages));
    join(3);
    replicated.close();
    refused(Code.UNAVAILABLE, () -> replicated.put(pages));
  }

  private static void refused(Code code, Runnable call) {
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(KvtierException.class, e -> assertThat(e.code()).isEqualTo(code));
  }

  @Test
  void whatIsDeletedIsGoneFromNodesThatDrainToo() {
    open(3, ReplicaConfig.of(3, 3, Duration.ofSeconds(10)));
    replicated.put(pages);
    members = new Rendezvous(2, List.of("tier-0", "tier-1"), Map.of(), List.of("tier-2"));
    replicated.delete(keys());
    assertThat(nodes.values()).allMatch(node -> node.pages.isEmpty());
  }

  @Test
  void whatIsHeldHereAndWasStoredElsewhereIsCopiedToItsNewHomes() throws InterruptedException {
    open(2, ReplicaConfig.of(2, 2, Duration.ofSeconds(10)));
    nodes.values().forEach(node -> node.put(pages));
    replicated.hold(keys());
    requireAllRead();
    nodes.put("tier-2", new FakeNode());
    join(2);
    List<PageKey> moved =
        keys().stream().filter(key -> members.homes(key, 2).contains("tier-2")).toList();
    assertThat(moved).isNotEmpty();
    awaitAll(node("tier-2"), moved);
  }

  /** Nodes that drain serve what they have, also where both homes of a page do. */
  @Test
  void pagesWhoseHomesBothDrainAreReadAndCopiedToTheirNewHomes() throws InterruptedException {
    open(4, ReplicaConfig.of(2, 2, Duration.ofSeconds(10)));
    replicated.put(pages);
    List<PageKey> both =
        keys().stream()
            .filter(key -> List.of("tier-2", "tier-3").containsAll(members.homes(key, 2)))
            .toList();
    assertThat(both).isNotEmpty();
    members = new Rendezvous(2, List.of("tier-0", "tier-1"), Map.of(), List.of("tier-2", "tier-3"));
    requireWhole(attend());
    requireAllRead();
    assertThat(replicated.contains(keys()).cardinality()).isEqualTo(PAGES);
    awaitAll(node("tier-0"), keys());
    awaitAll(node("tier-1"), keys());
    members = new Rendezvous(3, List.of("tier-0", "tier-1"));
    requireAllRead();
  }

  /** A session that was stored by others, and read back here, is looked after like our own. */
  @Test
  void whatIsHeldHereAndWhoseHomesBothDrainIsCopiedToItsNewHomes() throws InterruptedException {
    open(4, ReplicaConfig.of(2, 2, Duration.ofSeconds(10)));
    node("tier-2").put(pages);
    node("tier-3").put(pages);
    members = new Rendezvous(2, List.of("tier-0", "tier-1"), Map.of(), List.of("tier-2", "tier-3"));
    replicated.hold(keys());
    awaitAll(node("tier-0"), keys());
    awaitAll(node("tier-1"), keys());
  }
}
