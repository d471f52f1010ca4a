package io.kvtier.gpuworker.grpc;

import io.kvtier.client.ClusterMember;
import io.kvtier.gpuworker.session.SessionTable;
import io.kvtier.v1.FreedSession;
import io.kvtier.v1.SessionRef;
import java.util.List;
import java.util.Map;
import java.util.function.LongSupplier;
import java.util.stream.Collectors;

/**
 * What heartbeats tell of a worker's sessions that nobody uses, and what comes of it. Used by the
 * member's thread alone.
 */
public final class IdleReport {
  private final SessionTable sessions;
  private final LongSupplier bytesUsed;

  /** The epochs that the last heartbeat told, by session. */
  private Map<String, Long> told = Map.of();

  public IdleReport(SessionTable sessions, LongSupplier bytesUsed) {
    this.sessions = sessions;
    this.bytesUsed = bytesUsed;
  }

  /** What the next heartbeat tells. */
  public ClusterMember.Load load() {
    List<SessionRef> idle = sessions.idle(System.nanoTime(), ClusterMember.IDLE_MAX);
    told = idle.stream().collect(Collectors.toMap(SessionRef::getSessionId, SessionRef::getEpoch));
    return new ClusterMember.Load(bytesUsed.getAsLong(), sessions.size(), idle);
  }

  /** Frees a session, unless it has been resumed here since. Does not wait for it. */
  public void free(FreedSession freed) {
    Long epoch = told.get(freed.getSessionId());
    if (epoch != null) {
      // Waits for the session's calls and for the tier, which must not cost the node its lease.
      Thread.ofVirtual()
          .name("kvtier-free-" + freed.getSessionId())
          .start(() -> sessions.detach(freed.getSessionId(), epoch, freed.getKeepPages()));
    }
  }
}
