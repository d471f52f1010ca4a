package io.kvtier.client;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.replica.HedgeBudget;
import io.kvtier.replica.NodeHealth;
import io.kvtier.replica.ReadCourse;
import io.kvtier.replica.Rendezvous;
import io.kvtier.replica.ReplicaConfig;
import io.kvtier.replica.ReplicaCounts;
import io.kvtier.replica.ReplicaCounts.Count;
import io.kvtier.replica.WriteCourse;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.ObjIntConsumer;
import java.util.function.Supplier;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/**
 * Pages on several tier nodes, each on its homes by rendezvous hashing over the members of now.
 *
 * <ul>
 *   <li>A put makes R copies and returns once W are stored; the others go on behind it, up to a
 *       bound of bytes. Where a home refuses, the next node in rank stands in. With fewer members
 *       than W, as many copies as there are members do, and are counted as short. So no page whose
 *       put returned with W ≥ 2 is lost with one node.
 *   <li>Members that drain are no page's homes, and for all else are as the others: what they have
 *       is read, copied to its new homes, held and deleted there.
 *   <li>A read asks a page's first home, and the next in rank when that one lacks the page, fails
 *       or is silent; a slow one is hedged within a budget. Whole pages are verified here too;
 *       sections carry no checksums of their own and rely on the node's verification.
 *   <li>A page that a home lacks is copied there behind the callers' backs; so are, when the
 *       membership changes, pages stored or held here that have got a new home.
 *   <li>A delete goes to every member, and outlives copies and repairs under way.
 * </ul>
 *
 * <p>Safe for any number of threads; calls to nodes run on virtual threads. Owns its repair thread,
 * not the nodes' transports, which must end each call by a deadline of their own. Refusals: LOST if
 * every member lacks a page, UNAVAILABLE if some that may have it do not answer.
 */
public final class ReplicatedPages implements PageTransport {
  private static final Logger LOG = Logger.getLogger(ReplicatedPages.class.getName());

  /** Pages read at once, and about how many bytes; longer batches are read piece by piece. */
  private static final int BATCH_MAX = 256;

  private static final long BATCH_BYTES = 16 << 20;

  /** About how many bytes all reads under way may wait for. */
  private static final long READING_BYTES_MAX = 256 << 20;

  private static final long ANSWER_BYTES_MIN = 1 << 10;

  /** Deleted pages remembered at least: more than are likely to be on their way. */
  private static final int DELETIONS_MIN = 1 << 16;

  private final Supplier<Rendezvous> members;
  private final ReplicaConfig config;
  private final LongSupplier clock;
  private final ReplicaNodes nodes;
  private final HedgeBudget hedges;
  private final ReplicaCounts counts = new ReplicaCounts();
  private final Deletions deletions;
  private final Repairer repairer;
  private final AtomicLong lateBytes = new AtomicLong();
  private final ByteGate reading = new ByteGate(READING_BYTES_MAX);

  /** Length of a page's answer of late: what the next are expected to have. */
  private volatile long answerBytes = BATCH_BYTES / BATCH_MAX;

  private volatile boolean closed;

  /**
   * Replicated pages with nothing under way.
   *
   * @param members the tier nodes of now; asked often, must not block
   * @param transportOf the transport of a member, by node id; must not block
   */
  public ReplicatedPages(
      Supplier<Rendezvous> members,
      Function<String, PageTransport> transportOf,
      ReplicaConfig config) {
    this(members, transportOf, config, System::nanoTime);
  }

  ReplicatedPages(
      Supplier<Rendezvous> members,
      Function<String, PageTransport> transportOf,
      ReplicaConfig config,
      LongSupplier clock) {
    this.members = members;
    this.config = config;
    this.clock = clock;
    this.nodes = new ReplicaNodes(transportOf, config.callsPerNodeMax());
    this.hedges = new HedgeBudget(config.hedgePercent());
    this.deletions = new Deletions(Math.max(DELETIONS_MIN, config.keysMax()));
    this.repairer = new Repairer(members, nodes, config, counts, deletions, clock);
    repairer.start();
  }

  /** What has been done so far. */
  public ReplicaCounts counts() {
    return counts;
  }

  private Rendezvous membersOrRefuse() {
    if (closed) {
      throw new KvtierException(Code.UNAVAILABLE, "the replicated pages are closed");
    }
    Rendezvous now = members.get();
    if (now.nodes().isEmpty()) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "no cache tier is registered at the coordinator; start one with: kvtier cache-tier");
    }
    return now;
  }

  private int[][] rankings(Rendezvous now, List<PageKey> keys) {
    return keys.stream().map(key -> now.ranking(key, config.nodesMax())).toArray(int[][]::new);
  }

  private int[][] sources(Rendezvous now, List<PageKey> keys) {
    return keys.stream()
        .map(key -> now.sources(key, config.replicas(), config.nodesMax()))
        .toArray(int[][]::new);
  }

  // ---- put

  @Override
  public void put(List<KeyedPage> pages) {
    if (pages.isEmpty()) {
      return;
    }
    Rendezvous now = membersOrRefuse();
    List<PageKey> keys = pages.stream().map(KeyedPage::key).toList();
    deletions.wanted(keys, config.timeout().toNanos());
    WriteCourse course =
        new WriteCourse(rankings(now, keys), nodes.health(now.nodes()), config, counts);
    WriteRun run =
        new WriteRun(now, nodes, course, pages, clock, config.timeout().toNanos(), this::ended);
    // Late copies count from the start: who comes later knows what may still be on its way.
    boolean mayBeLate = lateBytes.addAndGet(run.bytes()) <= config.lateBytesMax();
    run.start();
    run.await(!mayBeLate);
    repairer.remember(keys, now);
  }

  /** A put's last copy has arrived, or has been refused. */
  private void ended(WriteRun run) {
    lateBytes.addAndGet(-run.bytes());
    List<PageKey> deleted = deletions.begin(run.keys());
    if (!deleted.isEmpty()) {
      // Also where a copy was refused: a node may have stored it and not have said so.
      run.sentTo().forEach(node -> deleteAgain(node, deleted));
    }
    deletions.end(deleted);
    if (!closed) {
      run.toRepair().forEach(repairer::repair);
    }
  }

  private void deleteAgain(String node, List<PageKey> keys) {
    try {
      nodes.call(node, transport -> transport.delete(keys));
    } catch (KvtierException e) {
      // Whoever deleted the pages has been told already that the node does not answer.
      counts.add(Count.COPIES_FAILED, keys.size());
    }
  }

  // ---- get

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    read(
        keys,
        consumer,
        (batch, from) -> (node, indexes, answers) -> node.get(ReadRun.at(batch, indexes), answers),
        (page, index) -> sound(keys.get(index), page));
  }

  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    List<PageKey> keys = wanted.stream().map(each -> PageKey.of(each.getKey())).toList();
    read(
        keys,
        consumer,
        (batch, from) ->
            (node, indexes, answers) ->
                node.getSections(indexes.stream().map(i -> wanted.get(from + i)).toList(), answers),
        (sections, index) -> true);
  }

  @Override
  public void readRows(PageLayout layout, List<RowsOf> wanted, PageConsumer consumer) {
    List<PageKey> keys = wanted.stream().map(each -> PageKey.of(each.getKey())).toList();
    read(
        keys,
        (rows, index) ->
            consumer.accept(new UnsafeBuffer(rows.asReadOnlyByteBuffer()), 0, rows.size(), index),
        (batch, from) ->
            (node, indexes, answers) ->
                node.readRows(
                    layout,
                    indexes.stream().map(i -> wanted.get(from + i)).toList(),
                    (bytes, offset, length, index) ->
                        answers.accept(PagesClient.copy(bytes, offset, length), index)),
        (rows, index) -> true);
  }

  /** Makes the call of one piece of a batch. */
  private interface Calls {
    ReadRun.Call of(List<PageKey> batch, int from);
  }

  private void read(
      List<PageKey> keys, ObjIntConsumer<ByteString> consumer, Calls calls, ReadRun.Check check) {
    int next = 0;
    while (next < keys.size()) {
      int from = next;
      long each = answerBytes;
      int count = Math.clamp(BATCH_BYTES / each, 1, BATCH_MAX);
      List<PageKey> batch = keys.subList(from, Math.min(keys.size(), from + count));
      next = from + batch.size();
      Rendezvous now = membersOrRefuse();
      int homes = Math.min(config.replicas(), now.nodes().size());
      NodeHealth[] health = nodes.health(now.everyone());
      ReadCourse course =
          new ReadCourse(sources(now, batch), homes, health, config, hedges, counts);
      ReadRun run =
          new ReadRun(
              now,
              nodes,
              course,
              batch.size(),
              calls.of(batch, from),
              (data, index) -> check.sound(data, from + index),
              clock,
              config.timeout().toNanos());
      long bytes = each * batch.size();
      reading.enter(bytes, config.timeout().toNanos());
      try {
        run.run(
            (data, index) -> {
              answerBytes = Math.max(ANSWER_BYTES_MIN, data.size());
              consumer.accept(data, from + index);
            },
            index -> repairer.repair(batch.get(index)));
      } finally {
        reading.leave(bytes);
      }
    }
  }

  /** Whether these bytes are the key's page. */
  static boolean sound(PageKey key, ByteString page) {
    UnsafeBuffer buffer = new UnsafeBuffer(page.asReadOnlyByteBuffer());
    return Pages.verify(key, buffer, 0, buffer.capacity()) == Pages.Flaw.NONE;
  }

  @Override
  public Optional<NearPages.Attended> attend(
      List<PageKey> keys, NearPages.Queries queries, long[] tokens) {
    Rendezvous now = membersOrRefuse();
    return new NearRun(now, nodes, sources(now, keys), keys, queries, tokens, repairer::repair)
        .run(clock.getAsLong());
  }

  /**
   * Tells which pages some member has. A member that does not answer is taken to have none as long
   * as fewer are silent than have each page; else it cannot be told.
   */
  @Override
  public BitSet contains(List<PageKey> keys) {
    Rendezvous now = membersOrRefuse();
    BitSet stored = new BitSet(keys.size());
    List<Future<BitSet>> answers = new ArrayList<>();
    for (String node : now.everyone()) {
      FutureTask<BitSet> task = new FutureTask<>(() -> containedAt(node, keys));
      Thread.ofVirtual().name("kvtier-replicas-", 0).start(task);
      answers.add(task);
    }
    int silent = 0;
    for (Future<BitSet> answer : answers) {
      try {
        stored.or(answer.get());
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new KvtierException(Code.UNAVAILABLE, "interrupted while replicas are asked", e);
      } catch (ExecutionException e) {
        LOG.log(Level.FINE, "a tier node does not tell which pages it has", e);
        silent++;
      }
    }
    if (silent >= config.writeAcks() && stored.cardinality() < keys.size()) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "%d of %d tier nodes do not tell which pages they have; ask again"
              .formatted(silent, now.everyone().size()));
    }
    return stored;
  }

  private BitSet containedAt(String node, List<PageKey> keys) {
    BitSet[] contained = new BitSet[1];
    nodes.call(node, transport -> contained[0] = transport.contains(keys));
    return contained[0];
  }

  // ---- delete

  /**
   * Removes pages from every member.
   *
   * @throws KvtierException the first member's refusal, once all have been asked; delete again then
   */
  @Override
  public void delete(List<PageKey> keys) {
    if (keys.isEmpty()) {
      return;
    }
    Rendezvous now = membersOrRefuse();
    Collection<PageKey> gone = Set.copyOf(keys);
    deletions.deleted(gone);
    repairer.forget(gone);
    KvtierException refusal = atEach(now.everyone(), transport -> transport.delete(keys));
    if (refusal != null) {
      throw refusal;
    }
  }

  // ---- hold

  /**
   * Holds pages at every member that answers; where one does not, other copies of its pages are
   * held. Held pages are repaired like those stored here.
   */
  @Override
  public void hold(List<PageKey> keys) {
    KvtierException refusal =
        atEach(membersOrRefuse().everyone(), transport -> transport.hold(keys));
    repairer.hold(keys);
    if (refusal != null) {
      LOG.log(Level.WARNING, "pages are not held everywhere: {0}", refusal.getMessage());
    }
  }

  /** Lets pages go at every member; the lease at one that does not answer ends by itself. */
  @Override
  public void letGo(List<PageKey> keys) {
    // First: a repair of what nobody here holds would pin it for good.
    repairer.letGo(keys);
    KvtierException refusal =
        atEach(membersOrRefuse().everyone(), transport -> transport.letGo(keys));
    if (refusal != null) {
      LOG.log(Level.WARNING, "pages are not let go everywhere: {0}", refusal.getMessage());
    }
  }

  /** Does something at some nodes at once; the first refusal once all have answered, or null. */
  private @Nullable KvtierException atEach(List<String> nodeIds, Consumer<PageTransport> call) {
    List<Future<Void>> calls = new ArrayList<>();
    for (String node : nodeIds) {
      FutureTask<Void> task = new FutureTask<>(() -> nodes.call(node, call), null);
      Thread.ofVirtual().name("kvtier-replicas-", 0).start(task);
      calls.add(task);
    }
    KvtierException refusal = null;
    for (Future<Void> each : calls) {
      try {
        each.get();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new KvtierException(Code.UNAVAILABLE, "interrupted while replicas are told", e);
      } catch (ExecutionException e) {
        if (refusal == null) {
          refusal =
              e.getCause() instanceof KvtierException refused
                  ? refused
                  : new KvtierException(Code.INTERNAL, "a replica was not told: " + e, e);
        } else {
          refusal.addSuppressed(e);
        }
      }
    }
    return refusal;
  }

  /** Ends repairs; copies under way go on to their transports' deadlines. Idempotent. */
  @Override
  public void close() {
    closed = true;
    repairer.close();
  }
}
