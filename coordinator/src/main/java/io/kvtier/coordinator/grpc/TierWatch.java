package io.kvtier.coordinator.grpc;

import com.google.protobuf.ByteString;
import io.grpc.Context;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.kvtier.KvtierException;
import io.kvtier.coordinator.lead.Lead;
import io.kvtier.coordinator.lead.PrefixSource;
import io.kvtier.coordinator.lead.Refusing;
import io.kvtier.coordinator.prefix.PrefixDirectory;
import io.kvtier.coordinator.prefix.StoredPrefix;
import io.kvtier.page.Codec;
import io.kvtier.page.PageKey;
import io.kvtier.page.PrefixChain;
import io.kvtier.rpc.Channels;
import io.kvtier.v1.Node;
import io.kvtier.v1.PageChange;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.WatchRequest;
import io.kvtier.v1.WatchResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;

/**
 * Keeps the prefix directory by watching every tier node that is a member: a snapshot, then events.
 * A stream that breaks is opened again from where it was; a node that leaves is forgotten. So it is
 * the first to know when a tier's process has ended. Owns its channels and one daemon thread.
 * Thread-safe.
 */
public final class TierWatch implements PrefixSource, AutoCloseable {
  private static final Logger LOG = Logger.getLogger(TierWatch.class.getName());
  private static final long ROUND_MS = Duration.ofMillis(250).toMillis();

  private final Supplier<List<Node>> tiers;
  private final LongSupplier nanoClock;
  private final WorkerChannels channels = new WorkerChannels(WorkerChannels.CHANNELS_MAX);
  private final ReentrantLock lock = new ReentrantLock();
  private final PrefixDirectory directory;
  private final Map<String, Watched> watched = new HashMap<>();
  private final CountDownLatch closing = new CountDownLatch(1);
  private final Thread thread;

  /**
   * Begins to watch.
   *
   * @param directory taken over; nobody else may touch it from now on
   * @param tiers asks for the tier nodes that are members now
   * @param nanoClock monotonic nanoseconds, as {@link System#nanoTime}
   */
  public TierWatch(PrefixDirectory directory, Supplier<List<Node>> tiers, LongSupplier nanoClock) {
    this.directory = directory;
    this.tiers = tiers;
    this.nanoClock = nanoClock;
    this.thread =
        Thread.ofPlatform().daemon().name("kvtier-coordinator-watch").start(this::keepWatching);
  }

  @Override
  public StoredPrefix find(PrefixChain chain, int layers, Codec codec) {
    lock.lock();
    try {
      return directory.find(chain, layers, codec);
    } finally {
      lock.unlock();
    }
  }

  @Override
  public boolean whole() {
    List<Node> members = tiers.get();
    lock.lock();
    try {
      return members.stream()
          .allMatch(node -> {
            Watched known = watched.get(node.getNodeId());
            return known != null && known.target.equals(node.getTarget()) && known.whole;
          });
    } finally {
      lock.unlock();
    }
  }

  /**
   * The members at whose address, where they were watched before, nobody listens any more: their
   * process has ended. One that was never reached says nothing: it may have told an address that
   * only others can reach.
   */
  private List<Refusing> refusing() {
    List<Node> members = tiers.get();
    long nowNs = nanoClock.getAsLong();
    lock.lock();
    try {
      List<Refusing> refusing = new ArrayList<>();
      for (Node node : members) {
        Watched known = watched.get(node.getNodeId());
        if (known != null && known.target.equals(node.getTarget()) && known.refuses) {
          refusing.add(new Refusing(node, nowNs - known.refusesSinceNs));
        }
      }
      return refusing;
    } finally {
      lock.unlock();
    }
  }

  /** Has the members whose process has ended removed before their lease runs out. */
  public void removeEnded(Lead lead) {
    lead.removeRefusing(refusing());
  }

  /** The pages of a chain, in all versions, by the node that holds them. */
  Map<String, List<PageKey>> holders(PrefixChain chain) {
    lock.lock();
    try {
      return directory.holders(chain);
    } finally {
      lock.unlock();
    }
  }

  /** Keys that the directory holds. */
  public int keys() {
    lock.lock();
    try {
      return directory.keys();
    } finally {
      lock.unlock();
    }
  }

  private void keepWatching() {
    boolean open = true;
    while (open) {
      watchMembers(tiers.get());
      try {
        open = !closing.await(ROUND_MS, TimeUnit.MILLISECONDS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return;
      }
    }
  }

  private void watchMembers(List<Node> members) {
    Map<String, String> targets = new HashMap<>();
    members.forEach(node -> targets.put(node.getNodeId(), node.getTarget()));
    lock.lock();
    try {
      watched
          .values()
          .removeIf(node -> {
            boolean gone = !node.target.equals(targets.get(node.id));
            if (gone) {
              node.cancel("the node has left");
              directory.forget(node.id);
            }
            return gone;
          });
      targets.forEach((id, target) -> watched.computeIfAbsent(id, _ -> new Watched(id, target)));
      watched.values().forEach(Watched::openIfBroken);
    } finally {
      lock.unlock();
    }
  }

  /** One node's stream. Guarded by the lock. */
  private final class Watched implements ClientResponseObserver<WatchRequest, WatchResponse> {
    final String id;
    final String target;
    private WorkerChannels.@Nullable Use use;
    private @Nullable ClientCallStreamObserver<WatchRequest> call;
    private long instance;
    private long sequence;
    private boolean told;
    private boolean whole;
    private boolean heard;
    private boolean refuses;
    private long refusesSinceNs;

    Watched(String id, String target) {
      this.id = id;
      this.target = target;
    }

    void openIfBroken() {
      if (use != null) {
        return;
      }
      WatchRequest request =
          WatchRequest.newBuilder().setInstance(instance).setSequence(sequence).build();
      WorkerChannels.Use taken;
      try {
        taken = channels.use(target);
      } catch (KvtierException e) {
        broken(e);
        return;
      }
      use = taken;
      // What a try says must be of now, and not of one before a back-off.
      channels.wake(target);
      Context.ROOT.run(() -> PagesGrpc.newStub(taken.channel()).watch(request, this));
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<WatchRequest> started) {
      call = started;
    }

    @Override
    public void onNext(WatchResponse response) {
      lock.lock();
      try {
        if (watched.get(id) == this) {
          take(response);
        }
      } finally {
        lock.unlock();
      }
    }

    private void take(WatchResponse response) {
      told = false;
      heard = true;
      refuses = false;
      if (response.getSnapshotBegins()) {
        directory.forget(id);
        whole = false;
      }
      for (ByteString key : response.getKeysList()) {
        directory.stored(id, PageKey.of(key));
      }
      for (PageChange change : response.getChangesList()) {
        PageKey key = PageKey.of(change.getKey());
        if (change.getStored()) {
          directory.stored(id, key);
        } else {
          directory.removed(id, key);
        }
      }
      // A snapshot that breaks off begins anew.
      boolean complete = !response.getSnapshot() || response.getSnapshotEnds();
      whole = whole || complete;
      instance = complete ? response.getInstance() : 0;
      sequence = response.getSequence();
    }

    @Override
    public void onError(Throwable thrown) {
      ended(thrown);
    }

    @Override
    public void onCompleted() {
      ended(null);
    }

    private void ended(@Nullable Throwable thrown) {
      lock.lock();
      try {
        WorkerChannels.Use ended = use;
        if (ended != null) {
          use = null;
          ended.close();
        }
        if (thrown != null && watched.get(id) == this) {
          broken(thrown);
        }
      } finally {
        lock.unlock();
      }
    }

    /** Told once a break, not once a try. */
    private void broken(Throwable thrown) {
      boolean refusedBefore = refuses;
      refuses = heard && Channels.isConnectionRefused(thrown);
      if (refuses && !refusedBefore) {
        refusesSinceNs = nanoClock.getAsLong();
      }
      if (!told && closing.getCount() > 0) {
        told = true;
        LOG.log(
            Level.INFO,
            "tier node {0} at {1} does not tell what it holds ({2}); asking again until it does",
            new Object[] {id, target, thrown.getMessage()});
      }
    }

    void cancel(String why) {
      ClientCallStreamObserver<WatchRequest> running = call;
      if (use != null && running != null) {
        running.cancel(why, null);
      }
    }
  }

  @Override
  public void close() {
    closing.countDown();
    lock.lock();
    try {
      watched.values().forEach(node -> node.cancel("the coordinator is closing"));
    } finally {
      lock.unlock();
    }
    try {
      thread.join();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    channels.close();
  }
}
