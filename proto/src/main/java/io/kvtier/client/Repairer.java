package io.kvtier.client;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.page.PageKey;
import io.kvtier.replica.Rendezvous;
import io.kvtier.replica.RepairPlan;
import io.kvtier.replica.RepairQueue.Repair;
import io.kvtier.replica.ReplicaConfig;
import io.kvtier.replica.ReplicaCounts;
import io.kvtier.replica.ReplicaCounts.Count;
import java.util.BitSet;
import java.util.Collection;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;

/**
 * Brings pages back to all their homes, one at a time, on one thread of its own: those that {@link
 * RepairPlan} finds.
 */
final class Repairer implements AutoCloseable {
  private static final Logger LOG = Logger.getLogger(Repairer.class.getName());
  private static final long MEMBERS_LOOK_NS = 500_000_000L;

  /** Pages that nodes are asked for at once. */
  private static final int LOOK_MAX = 256;

  private final Supplier<Rendezvous> members;
  private final ReplicaNodes nodes;
  private final ReplicaConfig config;
  private final ReplicaCounts counts;
  private final Deletions deletions;
  private final LongSupplier clock;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final RepairPlan plan;
  private final NodeCopier copier = new NodeCopier();

  private final Thread thread;
  private boolean closed;

  Repairer(
      Supplier<Rendezvous> members,
      ReplicaNodes nodes,
      ReplicaConfig config,
      ReplicaCounts counts,
      Deletions deletions,
      LongSupplier clock) {
    this.deletions = deletions;
    this.members = members;
    this.nodes = nodes;
    this.config = config;
    this.counts = counts;
    this.clock = clock;
    this.plan = new RepairPlan(config, counts);
    this.thread = Thread.ofVirtual().name("kvtier-repair").unstarted(this::work);
  }

  void start() {
    thread.start();
  }

  /** Has a page repaired, unless it has been deleted: a read or a copy may have begun before. */
  void repair(PageKey key) {
    if (deletions.isDeleted(key)) {
      return;
    }
    lock.lock();
    try {
      plan.offer(key, clock.getAsLong());
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /** Remembers pages that have been stored on the homes that these members gave them. */
  void remember(Collection<PageKey> keys, Rendezvous placed) {
    lock.lock();
    try {
      plan.remember(keys, placed);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /** Remembers pages that somebody here relies on. */
  void hold(Collection<PageKey> keys) {
    lock.lock();
    try {
      plan.hold(keys);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /** Ends a hold of each page. */
  void letGo(Collection<PageKey> keys) {
    lock.lock();
    try {
      plan.letGo(keys);
    } finally {
      lock.unlock();
    }
  }

  /** Forgets pages that are deleted. */
  void forget(Collection<PageKey> keys) {
    lock.lock();
    try {
      plan.forget(keys);
    } finally {
      lock.unlock();
    }
  }

  private void work() {
    try {
      while (!isClosed()) {
        lookForHeld();
        Repair repair = next();
        if (repair != null) {
          boolean done = false;
          try {
            done = plan.mend(members.get(), repair.key(), copier);
          } catch (RuntimeException e) {
            // Transports are foreign code: whatever one throws must not end all repairs.
            LOG.log(Level.WARNING, e, () -> "page " + repair.key() + " could not be repaired");
          }
          finish(repair, done);
        }
      }
    } catch (InterruptedException e) {
      // Only close interrupts this thread, which ends with it.
      Thread.currentThread().interrupt();
    }
  }

  private boolean isClosed() {
    lock.lock();
    try {
      return closed;
    } finally {
      lock.unlock();
    }
  }

  /** Waits for a repair that is due; null: closed, or pages have come to be held. */
  private @Nullable Repair next() throws InterruptedException {
    lock.lock();
    try {
      while (!closed && !plan.hasUnseen()) {
        lookAtMembers();
        Repair due = plan.poll(clock.getAsLong());
        if (due != null) {
          return due;
        }
        long waitNs = Math.min(MEMBERS_LOOK_NS, plan.untilDueNs(clock.getAsLong()));
        long _ = changed.awaitNanos(waitNs);
      }
      return null;
    } finally {
      lock.unlock();
    }
  }

  /** Has those pages repaired that came to be held here and that a home lacks. */
  private void lookForHeld() {
    List<PageKey> unseen;
    do {
      lock.lock();
      try {
        unseen = closed ? List.of() : plan.takeUnseen(LOOK_MAX);
      } finally {
        lock.unlock();
      }
      if (!unseen.isEmpty()) {
        RepairPlan.lacking(members.get(), config.replicas(), unseen, this::contains)
            .forEach(this::repair);
      }
    } while (!unseen.isEmpty());
  }

  private @Nullable BitSet contains(String node, List<PageKey> keys) {
    BitSet[] found = new BitSet[1];
    try {
      nodes.call(node, transport -> found[0] = transport.contains(keys));
    } catch (KvtierException e) {
      // What it lacks is found by a read that misses it.
      return null;
    }
    return found[0];
  }

  private void lookAtMembers() {
    Rendezvous now = members.get();
    if (plan.members(now)) {
      nodes.retain(now);
    }
  }

  private final class NodeCopier implements RepairPlan.Copier<ByteString> {
    @Override
    public @Nullable ByteString read(String node, PageKey key) {
      return readFrom(node, key);
    }

    @Override
    public boolean write(String node, PageKey key, ByteString page) {
      return writeTo(node, new KeyedPage(key, page));
    }
  }

  private @Nullable ByteString readFrom(String node, PageKey key) {
    ByteString[] read = new ByteString[1];
    try {
      nodes.call(
          node,
          transport ->
              transport.get(
                  List.of(key),
                  (page, index) -> read[0] = ReplicatedPages.sound(key, page) ? page : null));
    } catch (KvtierException e) {
      // It lacks the page or does not answer; the next in rank may have it.
      return null;
    }
    return read[0];
  }

  private boolean writeTo(String node, KeyedPage page) {
    try {
      nodes.call(node, transport -> transport.put(List.of(page)));
      return true;
    } catch (KvtierException e) {
      counts.add(Count.COPIES_FAILED, 1);
      return false;
    }
  }

  private void finish(Repair repair, boolean done) {
    // Deleted meanwhile: some copy may have been made after its node was told.
    List<PageKey> deleted = deletions.begin(List.of(repair.key()));
    if (!deleted.isEmpty()) {
      for (String home : members.get().homes(repair.key(), config.replicas())) {
        deleteQuietly(home, repair.key());
      }
    }
    deletions.end(deleted);
    lock.lock();
    try {
      if (done) {
        counts.add(Count.REPAIRS_DONE, 1);
      } else if (!deletions.isDeleted(repair.key())) {
        plan.failed(repair, clock.getAsLong());
      }
    } finally {
      lock.unlock();
    }
  }

  private void deleteQuietly(String node, PageKey key) {
    try {
      nodes.call(node, transport -> transport.delete(List.of(key)));
    } catch (KvtierException e) {
      // Whoever deleted the page was told that this node does not answer, and deletes again.
    }
  }

  /** Ends the thread; what waits is dropped. Idempotent. */
  @Override
  public void close() {
    lock.lock();
    try {
      closed = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    thread.interrupt();
    try {
      boolean _ = thread.join(java.time.Duration.ofNanos(TimeUnit.SECONDS.toNanos(5)));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
