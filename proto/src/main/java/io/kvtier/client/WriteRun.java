package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.page.PageKey;
import io.kvtier.replica.Rendezvous;
import io.kvtier.replica.WriteCourse;
import io.kvtier.replica.WriteCourse.Copy;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import java.util.function.LongSupplier;

/**
 * One put under way: a {@link WriteCourse} with threads, one a call to a node, and a clock. Copies
 * may still be on their way after the put has returned, and until then a home that is silent for
 * too long has another node stand in for it.
 */
final class WriteRun {
  private final Rendezvous members;
  private final ReplicaNodes nodes;
  private final WriteCourse course;
  private final List<KeyedPage> pages;
  private final LongSupplier clock;
  private final long timeoutNs;
  private final Consumer<WriteRun> atEnd;
  private final Set<PageKey> keys;
  private final Set<String> sentTo = new HashSet<>();
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();

  WriteRun(
      Rendezvous members,
      ReplicaNodes nodes,
      WriteCourse course,
      List<KeyedPage> pages,
      LongSupplier clock,
      long timeoutNs,
      Consumer<WriteRun> atEnd) {
    this.members = members;
    this.nodes = nodes;
    this.course = course;
    this.pages = pages;
    this.clock = clock;
    this.timeoutNs = timeoutNs;
    this.atEnd = atEnd;
    this.keys = new HashSet<>(pages.stream().map(KeyedPage::key).toList());
  }

  /** Bytes of the pages, once each. */
  long bytes() {
    return pages.stream().mapToLong(page -> page.page().size()).sum();
  }

  /** Sends all copies on their way. */
  void start() {
    lock.lock();
    try {
      start(course.begin(clock.getAsLong()));
    } finally {
      lock.unlock();
    }
  }

  /**
   * Waits until each page has enough copies, or all of them.
   *
   * @throws KvtierException why they are not stored
   */
  void await(boolean all) {
    long deadlineNs = clock.getAsLong() + timeoutNs;
    lock.lock();
    try {
      while (!course.acknowledged() || (all && !course.over())) {
        KvtierException failure = course.failure();
        if (failure != null && !course.acknowledged()) {
          throw new KvtierException(failure.code(), String.valueOf(failure.getMessage()), failure);
        }
        long leftNs = deadlineNs - clock.getAsLong();
        if (leftNs <= 0 && course.acknowledged()) {
          // Enough copies are stored; that the others are late is no reason to refuse.
          return;
        }
        if (leftNs <= 0) {
          throw new KvtierException(
              Code.DEADLINE,
              "tier nodes %s did not store all copies within %d ms; send the call again"
                  .formatted(members.nodes(), TimeUnit.NANOSECONDS.toMillis(timeoutNs)));
        }
        start(course.tick(clock.getAsLong()));
        long _ = changed.awaitNanos(Math.min(leftNs, course.untilTickNs(clock.getAsLong())));
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while pages are being stored", e);
    } finally {
      lock.unlock();
    }
  }

  /** Once over: the pages that some home lacks. */
  List<PageKey> toRepair() {
    lock.lock();
    try {
      List<PageKey> lacking = new ArrayList<>();
      for (int i = 0; i < pages.size(); i++) {
        if (course.needsRepair(i)) {
          lacking.add(pages.get(i).key());
        }
      }
      return lacking;
    } finally {
      lock.unlock();
    }
  }

  /** The pages, each once. */
  Set<PageKey> keys() {
    return keys;
  }

  /** The nodes that copies were sent to. */
  Set<String> sentTo() {
    lock.lock();
    try {
      return Set.copyOf(sentTo);
    } finally {
      lock.unlock();
    }
  }

  private void start(List<Copy> copies) {
    for (Copy copy : copies) {
      String node = members.nodes().get(copy.node());
      sentTo.add(node);
      Thread.ofVirtual().name("kvtier-write-", 0).start(() -> store(copy, node));
    }
  }

  /** One call to a node, on a thread of its own. */
  private void store(Copy copy, String node) {
    List<KeyedPage> batch = copy.pages().stream().map(pages::get).toList();
    KvtierException refusal = null;
    try {
      nodes.call(node, transport -> transport.put(batch));
    } catch (KvtierException e) {
      refusal = e;
    }
    boolean over;
    lock.lock();
    try {
      if (refusal == null) {
        course.stored(copy);
      } else {
        start(course.refused(copy, refusal, clock.getAsLong()));
      }
      over = course.over();
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    if (over) {
      atEnd.accept(this);
    }
  }
}
