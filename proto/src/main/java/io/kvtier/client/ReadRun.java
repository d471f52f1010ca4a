package io.kvtier.client;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import io.kvtier.replica.ReadCourse;
import io.kvtier.replica.ReadCourse.Ask;
import io.kvtier.replica.Rendezvous;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.IntConsumer;
import java.util.function.LongSupplier;
import java.util.function.ObjIntConsumer;
import org.jspecify.annotations.Nullable;

/** One read under way: a {@link ReadCourse} with threads, one a call to a node, and a clock. */
final class ReadRun {
  /** Ends a call whose answers nobody wants any more. */
  static final class Ended extends RuntimeException {
    private static final long serialVersionUID = 1L;

    Ended() {
      super("ended", null, false, false);
    }
  }

  /** How some pages of the batch are asked of a node. */
  interface Call {
    /**
     * Asks for the pages.
     *
     * @param indexes in the batch
     * @param consumer is given each page, and its place in {@code indexes}
     */
    void ask(PageTransport node, List<Integer> indexes, ObjIntConsumer<ByteString> consumer);
  }

  /** Whether an answer is what the index in the batch asks for. */
  interface Check {
    boolean sound(ByteString data, int index);
  }

  private final Rendezvous members;
  private final ReplicaNodes nodes;
  private final ReadCourse course;
  private final Call call;
  private final Check check;
  private final LongSupplier clock;
  private final long timeoutNs;
  private final @Nullable ByteString[] answers;
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private boolean ended;

  ReadRun(
      Rendezvous members,
      ReplicaNodes nodes,
      ReadCourse course,
      int pages,
      Call call,
      Check check,
      LongSupplier clock,
      long timeoutNs) {
    this.members = members;
    this.nodes = nodes;
    this.course = course;
    this.call = call;
    this.check = check;
    this.clock = clock;
    this.timeoutNs = timeoutNs;
    this.answers = new @Nullable ByteString[pages];
  }

  /**
   * Reads all pages and gives them to the consumer, in order.
   *
   * @param repair is given the index of each page that some home lacks
   * @throws KvtierException why a page cannot be read
   */
  void run(ObjIntConsumer<ByteString> consumer, IntConsumer repair) {
    long deadlineNs = clock.getAsLong() + timeoutNs;
    try {
      lock.lock();
      try {
        start(course.begin(clock.getAsLong()));
      } finally {
        lock.unlock();
      }
      for (int i = 0; i < answers.length; i++) {
        consumer.accept(take(i, deadlineNs), i);
      }
    } finally {
      end(repair);
    }
  }

  private void end(IntConsumer repair) {
    lock.lock();
    try {
      ended = true;
      for (int i = 0; i < answers.length; i++) {
        if (course.needsRepair(i)) {
          repair.accept(i);
        }
      }
    } finally {
      lock.unlock();
    }
  }

  /** Waits for a page. */
  private ByteString take(int i, long deadlineNs) {
    lock.lock();
    try {
      while (true) {
        ByteString answer = answers[i];
        if (answer != null) {
          answers[i] = null;
          return answer;
        }
        KvtierException failure = course.failure();
        if (failure != null) {
          throw new KvtierException(failure.code(), String.valueOf(failure.getMessage()), failure);
        }
        long nowNs = clock.getAsLong();
        if (deadlineNs - nowNs <= 0) {
          throw new KvtierException(
              Code.DEADLINE,
              "tier nodes %s did not give all pages within %d ms; send the call again"
                  .formatted(members.everyone(), TimeUnit.NANOSECONDS.toMillis(timeoutNs)));
        }
        start(course.tick(nowNs));
        await(Math.min(course.untilTickNs(nowNs), deadlineNs - nowNs));
      }
    } finally {
      lock.unlock();
    }
  }

  /** One wait of a loop. */
  @SuppressWarnings("WaitNotInLoop")
  private void await(long waitNs) {
    try {
      long _ = changed.awaitNanos(waitNs);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while pages are being read", e);
    }
  }

  private void start(List<Ask> asks) {
    for (Ask ask : asks) {
      String node = members.everyone().get(ask.node());
      Thread.ofVirtual().name("kvtier-read-", 0).start(() -> ask(ask, node));
    }
  }

  /** One call to a node, on a thread of its own. */
  private void ask(Ask ask, String node) {
    List<Integer> indexes = new ArrayList<>(ask.size());
    for (int i = 0; i < ask.size(); i++) {
      indexes.add(ask.key(i));
    }
    try {
      nodes.call(
          node,
          transport ->
              call.ask(transport, indexes, (data, place) -> accept(ask, node, data, place)));
      requireAll(ask, node);
    } catch (KvtierException e) {
      refused(ask, e);
    } catch (Ended e) {
      // Another node was sooner, or the reader has gone.
    }
  }

  private void requireAll(Ask ask, String node) {
    lock.lock();
    try {
      if (ask.given() < ask.size()) {
        throw new KvtierException(
            Code.INTERNAL,
            "tier node %s answered %d of %d pages".formatted(node, ask.given(), ask.size()));
      }
    } finally {
      lock.unlock();
    }
  }

  private void accept(Ask ask, String node, ByteString data, int place) {
    int index = ask.key(Math.min(place, ask.size() - 1));
    // Checked before the lock is taken: a checksum over a page takes a while.
    boolean sound = check.sound(data, index);
    lock.lock();
    try {
      if (ended) {
        throw new Ended();
      }
      if (place != ask.given() || place >= ask.size()) {
        throw new KvtierException(
            Code.INTERNAL,
            "tier node %s answered page %d of a batch of %d where %d was due"
                .formatted(node, place, ask.size(), ask.given()));
      }
      List<Ask> more = new ArrayList<>();
      if (course.answered(ask, sound, clock.getAsLong(), more)) {
        answers[index] = data;
      }
      start(more);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private void refused(Ask ask, KvtierException e) {
    lock.lock();
    try {
      List<Ask> more = course.refused(ask, e, clock.getAsLong());
      if (!ended) {
        start(more);
        changed.signalAll();
      }
    } finally {
      lock.unlock();
    }
  }

  /** The keys of a batch at some indexes. */
  static List<PageKey> at(List<PageKey> keys, List<Integer> indexes) {
    return indexes.stream().map(keys::get).toList();
  }
}
