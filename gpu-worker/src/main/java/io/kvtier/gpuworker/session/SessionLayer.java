package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.precondition;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.Collectors;
import org.agrona.collections.Int2IntHashMap;
import org.jspecify.annotations.Nullable;

/**
 * One layer of a session and what guards it. All fields but the counters are read and written
 * between {@link #enter} and {@link #leave}. A step may leave a full page to be encoded after it:
 * whoever enters next, the background or another step, finds that done or does it, so that nobody
 * ever sees the layer without its page and no result depends on when it was encoded.
 */
final class SessionLayer {
  final DeviceLayer device;

  /** Rows that stay for later steps. */
  final RowArena rows;

  final RowLookup lookup = new RowLookup();

  /** What the last query chose. */
  final LastChosen last = new LastChosen();

  /** Rows prefetched since the last step. */
  final AtomicInteger prefetched = new AtomicInteger();

  /** Bytes of rows that have come ahead since the last step, and that no query has chosen. */
  long aheadUnused;

  /** One policy a KV head; empty before the plan. */
  List<HeadPolicy> policies = List.of();

  /** Heads that choose tokens; read without the lock too. */
  volatile int sketchedHeads;

  /** The prompt's last queries, {@code [window][qHeads][headDim]}; empty: none came. */
  float[] queries = new float[0];

  /** One letter a KV head, as a trace tells them; empty before the plan. */
  String classes = "";

  /** Tokens of which the next step says which were accepted; null: none wait. */
  @Nullable TokenTree tree;

  /** The prefetch whose rows the arena awaits. */
  @Nullable Prefetch prefetch;

  /** Header checksums of pages that were made here, by page; 0: not known. */
  private final Int2IntHashMap checksums = new Int2IntHashMap(0);

  private final ReentrantLock lock = new ReentrantLock();
  private final LayerShape shape;

  /** Takes the page that a step has left; null: none is left. */
  private volatile @Nullable TierSink left;

  private @Nullable LayerPass pass;
  private @Nullable LayerPass hintPass;

  SessionLayer(DeviceLayer device, LayerShape shape, DeviceMemory memory) {
    this.device = device;
    this.shape = shape;
    this.rows = new RowArena(memory);
  }

  /** Waits until nobody else is in the layer; a page that was left is encoded then. */
  void enter() {
    lock.lock();
    takeLeftOrLeave();
  }

  /** The same where nobody else is; false: somebody is. */
  boolean tryEnter() {
    if (!lock.tryLock()) {
      return false;
    }
    takeLeftOrLeave();
    return true;
  }

  void leave() {
    lock.unlock();
  }

  /** Whether somebody waits to enter; for who is in the layer. */
  boolean isAwaited() {
    return lock.hasQueuedThreads();
  }

  /** Leaves the device layer's last page to whoever enters next. */
  void leavePage(TierSink sink) {
    left = sink;
  }

  /** Whether a page is left; of any thread, but sure only for who is in the layer. */
  boolean hasLeft() {
    return left != null;
  }

  /** Encodes the page that is left, if one is; for who is in the layer. */
  void takeLeft() {
    TierSink sink = left;
    if (sink != null) {
      sink.pageOut();
      left = null;
    }
  }

  private void takeLeftOrLeave() {
    boolean taken = false;
    try {
      takeLeft();
      taken = true;
    } finally {
      if (!taken) {
        lock.unlock();
      }
    }
  }

  /**
   * Has the hot set's rows give back what is beyond their bound, unless somebody is in the layer.
   */
  void tryFitRows() {
    if (lock.tryLock()) {
      try {
        rows.fit();
      } finally {
        lock.unlock();
      }
    }
  }

  /** Notes what a page was made as. */
  void made(int page, int checksum) {
    checksums.put(page, checksum);
  }

  /** Whether a page may have been made as this: not if it is known to have been made otherwise. */
  boolean madeAs(int page, int checksum) {
    int known = checksums.get(page);
    return known == 0 || known == checksum;
  }

  /** A pass under the policies of now. */
  LayerPass pass() {
    LayerPass current = pass;
    if (current == null) {
      current = device.newPass(policies);
      pass = current;
    }
    return current;
  }

  /** A pass for predicted queries, so that a step's own is left alone. */
  LayerPass hintPass() {
    LayerPass current = hintPass;
    if (current == null) {
      current = device.newPass(policies);
      hintPass = current;
    }
    return current;
  }

  /**
   * Refuses to go on as long as a tree waits.
   *
   * @throws io.kvtier.KvtierException PRECONDITION
   */
  void requireNoTree(int layer) {
    TokenTree waiting = tree;
    if (waiting != null) {
      throw precondition(
          "a tree of %d tokens waits with layer %d; tell with the layer's next decode message which"
              + " of them were accepted",
          waiting.tokens(), layer);
    }
  }

  /** Rows under other policies may be made of other sections: those that are there are dropped. */
  void setPolicies(List<HeadPolicy> policies) {
    this.policies = policies;
    this.classes =
        policies.stream()
            .map(policy ->
                switch (policy.residence()) {
                  case DENSE -> "D";
                  case TWO_PLANES -> "T";
                  case ONE_PLANE -> "O";
                  case STREAMED -> "S";
                })
            .collect(Collectors.joining());
    this.pass = null;
    this.hintPass = null;
    this.sketchedHeads = HotSet.sketchedHeads(policies);
    rows.reset(sketchedHeads == 0 ? 0 : shape.rowForm().bytes());
    prefetch = null;
    last.follow(policies);
  }
}
