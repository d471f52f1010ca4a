package io.kvtier.cachetier.grpc;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.protobuf.ByteString;
import io.grpc.Status;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.kvtier.v1.PageChange;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.WatchRequest;
import io.kvtier.v1.WatchResponse;
import java.util.HashSet;
import java.util.Set;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/** What a client that watches knows; checks every message. */
final class WatchedPages implements ClientResponseObserver<WatchRequest, WatchResponse> {
  private final Set<ByteString> there = new HashSet<>();
  private @Nullable ClientCallStreamObserver<WatchRequest> call;
  private @Nullable Status ended;
  private @Nullable Throwable failure;
  private long instance;
  private long sequence;
  private final Set<ByteString> changed = new HashSet<>();
  private int snapshots;
  private int messages;
  private final boolean takesAll;

  /**
   * @param takesAll otherwise messages are taken by {@link #take} alone
   */
  WatchedPages(boolean takesAll) {
    this.takesAll = takesAll;
  }

  void watch(PagesGrpc.PagesStub stub) {
    WatchRequest request;
    synchronized (this) {
      ended = null;
      request = WatchRequest.newBuilder().setInstance(instance).setSequence(sequence).build();
    }
    stub.watch(request, this);
  }

  @Override
  public void beforeStart(ClientCallStreamObserver<WatchRequest> stream) {
    synchronized (this) {
      call = stream;
    }
    if (!takesAll) {
      stream.disableAutoRequestWithInitial(1);
    }
  }

  synchronized void take(int messages) {
    if (call != null) {
      call.request(messages);
    }
  }

  synchronized void cancel() {
    if (call != null) {
      call.cancel("seen enough", null);
    }
  }

  @Override
  public synchronized void onNext(WatchResponse message) {
    messages++;
    try {
      apply(message);
    } catch (AssertionError e) {
      failure = failure == null ? e : failure;
    }
    notifyAll();
  }

  private void apply(WatchResponse message) {
    if (message.getSnapshotBegins()) {
      there.clear();
      snapshots++;
      changed.clear();
      instance = message.getInstance();
    }
    assertThat(message.getInstance()).isEqualTo(instance);
    if (message.getSnapshot()) {
      sequence = message.getSequence();
      message.getKeysList().forEach(key -> assertThat(there.add(key)).isTrue());
      return;
    }
    assertThat(message.getSequence() - message.getChangesCount()).as("no gap").isEqualTo(sequence);
    for (PageChange change : message.getChangesList()) {
      sequence++;
      boolean news =
          change.getStored() ? there.add(change.getKey()) : there.remove(change.getKey());
      boolean first = changed.add(change.getKey());
      assertThat(news || first).as("event %d is news", sequence).isTrue();
    }
  }

  @Override
  public synchronized void onError(Throwable thrown) {
    ended = Status.fromThrowable(thrown);
    notifyAll();
  }

  @Override
  public synchronized void onCompleted() {
    ended = Status.OK;
    notifyAll();
  }

  synchronized int snapshots() {
    return snapshots;
  }

  /** Messages that have come, of whatever kind. */
  synchronized int messages() {
    return messages;
  }

  synchronized long sequence() {
    return sequence;
  }

  /** Waits until it knows what is expected. */
  synchronized Set<ByteString> await(Predicate<Set<ByteString>> expected)
      throws InterruptedException {
    while (!expected.test(there)) {
      assertThat(failure).isNull();
      assertThat(ended).as("the watch has ended").isNull();
      wait();
    }
    return Set.copyOf(there);
  }

  synchronized Status awaitEnd() throws InterruptedException {
    while (ended == null) {
      wait();
    }
    assertThat(failure).isNull();
    return ended;
  }
}
