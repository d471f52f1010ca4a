package io.kvtier.client;

import io.grpc.ManagedChannel;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.AttentionGrpc;
import io.kvtier.v1.DecodeRequest;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.DecodeStep;
import io.kvtier.v1.KvChunk;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.PrefillRequest;
import io.kvtier.v1.PrefillResponse;
import io.kvtier.v1.Session;
import io.kvtier.v1.StreamOpen;
import java.time.Duration;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * A session and the worker that serves it now. When that fails, the session is resumed, wherever
 * the coordinator places it, and what its new worker lacks is sent again. One thread.
 */
final class SessionLink {
  private static final long PAUSE_NS_MIN = TimeUnit.MILLISECONDS.toNanos(10);
  private static final long PAUSE_NS_MAX = TimeUnit.MILLISECONDS.toNanos(500);
  private static final int IN_FLIGHT_MAX = 8;

  private final KvtierClient client;
  private final @Nullable ReplayTail tail;
  private Session session;
  private ManagedChannel channel;
  private @Nullable Recompute recompute;

  /** The steps whose trees wait with the worker, by layer. */
  private final SortedMap<Integer, DecodeStep> trees = new TreeMap<>();

  /** Whether they do not, since the session has been resumed. */
  private boolean treesDue;

  /**
   * A link.
   *
   * @param tail what was sent and is not stored yet; null: nothing is kept, and every failure is
   *     the caller's
   */
  SessionLink(KvtierClient client, Session session, @Nullable ReplayTail tail) {
    this.client = client;
    this.session = session;
    this.channel = client.worker(session.getWorkerTarget());
    this.tail = tail;
  }

  /** A tail for a new session; null: nothing is to be kept. */
  static @Nullable ReplayTail tailOf(Session session, long replayBytesMax) {
    // TailorKV's method stores no pages, so nothing of it could be read back.
    if (replayBytesMax == 0 || session.getMode() == PlanMode.PLAN_MODE_TAILORKV) {
      return null;
    }
    ReplayTail tail = new ReplayTail(session.getGeometry(), replayBytesMax);
    for (int layer = 0; layer < session.getGeometry().getLayers(); layer++) {
      boolean resumed = session.getLayerTokensCount() > 0;
      tail.begin(layer, resumed ? session.getLayerTokens(layer) : session.getReusedTokens());
    }
    if (session.hasPlan()) {
      tail.comeBackEven();
    }
    return tail;
  }

  Session session() {
    return session;
  }

  ManagedChannel channel() {
    return channel;
  }

  @Nullable ReplayTail tail() {
    return tail;
  }

  @Nullable Recompute recompute() {
    return recompute;
  }

  void recomputeWith(@Nullable Recompute with) {
    recompute = with;
  }

  SortedMap<Integer, DecodeStep> trees() {
    return trees;
  }

  boolean treesDue() {
    return treesDue;
  }

  void treesSent() {
    treesDue = false;
  }

  String peer() {
    return "the worker at " + session.getWorkerTarget();
  }

  Duration timeout() {
    return client.timeout();
  }

  Duplex<PrefillRequest, PrefillResponse> openPrefill() {
    Duplex<PrefillRequest, PrefillResponse> stream =
        new Duplex<>(AttentionGrpc.newBlockingV2Stub(channel).prefill(), peer(), client.timeout());
    stream.write(PrefillRequest.newBuilder().setOpen(streamOpen()).build());
    var _ = stream.read();
    return stream;
  }

  Duplex<DecodeRequest, DecodeResponse> openDecode() {
    Duplex<DecodeRequest, DecodeResponse> stream =
        new Duplex<>(AttentionGrpc.newBlockingV2Stub(channel).decode(), peer(), client.timeout());
    stream.write(DecodeRequest.newBuilder().setOpen(streamOpen()).build());
    return stream;
  }

  private StreamOpen streamOpen() {
    return StreamOpen.newBuilder()
        .setSessionId(session.getSessionId())
        .setEpoch(session.getEpoch())
        .build();
  }

  /** When a call that begins now has taken too long. */
  long deadlineNs() {
    return System.nanoTime() + client.timeout().toNanos();
  }

  /** Whether a failure may be the worker's, and the session may go on elsewhere. */
  boolean recoversFrom(KvtierException e) {
    // A worker that was started again at the same address does not know the session.
    return tail != null && (e.code() == Code.UNAVAILABLE || e.code() == Code.NOT_FOUND);
  }

  /** Tokens of a layer at its worker when the session was resumed last. */
  int resumedTokens(int layer) {
    return session.getLayerTokens(layer);
  }

  /** Makes a call that changes nothing, again if the session had to be resumed for it. */
  <T> T recovering(Supplier<T> call) {
    long deadlineNs = deadlineNs();
    while (true) {
      try {
        return call.get();
      } catch (KvtierException e) {
        if (!recoversFrom(e) || System.nanoTime() > deadlineNs) {
          throw e;
        }
        recover(e, deadlineNs);
      }
    }
  }

  /**
   * Resumes the session and sends its worker what it lacks.
   *
   * @param cause what the worker failed with
   * @throws KvtierException if that does not succeed by the deadline; LOST if rows that the worker
   *     lacks are not kept here either: the tail then begins with what the worker has
   */
  void recover(KvtierException cause, long deadlineNs) {
    long pauseNs = PAUSE_NS_MIN;
    String requestId = UUID.randomUUID().toString();
    while (true) {
      boolean resumed = false;
      try {
        session = client.resume(session, true, requestId);
        channel = client.worker(session.getWorkerTarget());
        resumed = true;
        treesDue = true;
        replay();
        return;
      } catch (KvtierException e) {
        if (e.code() == Code.INTERNAL && !resumed) {
          // A coordinator that cannot resume: the failure stays what it was.
          cause.addSuppressed(e);
          throw cause;
        }
        boolean passes =
            e.code() == Code.UNAVAILABLE
                || e.code() == Code.DEADLINE
                || (e.code() == Code.NOT_FOUND && resumed);
        if (!passes || System.nanoTime() + pauseNs > deadlineNs) {
          e.addSuppressed(cause);
          throw e;
        }
      }
      if (resumed) {
        requestId = UUID.randomUUID().toString();
      }
      LockSupport.parkNanos(this, pauseNs);
      pauseNs = Math.min(2 * pauseNs, PAUSE_NS_MAX);
    }
  }

  private void replay() {
    ReplayTail kept = tail;
    if (kept == null) {
      return;
    }
    requireKept(kept);
    try (ReplayedChunks chunks = new ReplayedChunks(kept)) {
      for (int layer = 0; layer < session.getGeometry().getLayers(); layer++) {
        kept.replay(layer, resumedTokens(layer), chunks::send);
      }
      chunks.await(0);
    }
  }

  private void requireKept(ReplayTail kept) {
    int layers = session.getGeometry().getLayers();
    for (int layer = 0; layer < layers; layer++) {
      int have = resumedTokens(layer);
      int first = kept.kept(layer);
      if (have < first) {
        for (int each = 0; each < layers; each++) {
          kept.begin(each, resumedTokens(each));
        }
        throw new KvtierException(
            Code.LOST,
            ("session %s has %d tokens of layer %d that are stored, and those from there to %d are"
                    + " kept nowhere; send each layer's tokens again, from where it ends now")
                .formatted(session.getSessionId(), have, layer, first));
      }
    }
  }

  /** Chunks on their way, some at a time; a stream is opened for the first. */
  private final class ReplayedChunks implements AutoCloseable {
    private final ReplayTail kept;
    private @Nullable Duplex<PrefillRequest, PrefillResponse> stream;
    private int inFlight;

    ReplayedChunks(ReplayTail kept) {
      this.kept = kept;
    }

    void send(KvChunk chunk) {
      Duplex<PrefillRequest, PrefillResponse> open = stream;
      if (open == null) {
        open = openPrefill();
        stream = open;
      }
      await(IN_FLIGHT_MAX - 1);
      open.write(PrefillRequest.newBuilder().setChunk(chunk).build());
      inFlight++;
    }

    void await(int most) {
      Duplex<PrefillRequest, PrefillResponse> open = stream;
      while (open != null && inFlight > most) {
        PrefillResponse answer = open.read();
        inFlight--;
        kept.durable(answer.getLayer(), answer.getDurableTokens());
      }
    }

    @Override
    public void close() {
      if (stream != null) {
        stream.close();
      }
    }
  }
}
