package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.v1.Session;
import java.util.List;
import java.util.logging.Logger;

/** How a session begins: with what is stored of its prompt, and under the plan it came with. */
public final class SessionOpening {
  private static final Logger LOG = Logger.getLogger(SessionOpening.class.getName());

  private SessionOpening() {}

  /**
   * A session with the tokens of its prefix that are stored; honours the plan it was opened with,
   * if it was. If a page of the prefix is not stored any more, the session has no tokens: they are
   * sent anew.
   */
  public static WorkerSession open(Session info, Prefix prefix, SessionHost host) {
    Sessions.requireBounds(info);
    List<List<HeadPolicy>> policies =
        info.hasPlan() ? PlanSwitch.policiesOf(info.getPlan(), info.getGeometry()) : List.of();
    WorkerSession session = withPrefix(info, prefix, host);
    if (info.hasPlan()) {
      session.adopt(info.getPlan(), policies);
    }
    return session;
  }

  private static WorkerSession withPrefix(Session info, Prefix prefix, SessionHost host) {
    WorkerSession session = WorkerSession.empty(info, prefix.chain(), host);
    if (prefix.reusedPages(session.shape()) == 0) {
      return session;
    }
    try {
      session.restore(prefix);
      return session;
    } catch (KvtierException e) {
      session.abandon();
      if (e.code() != Code.LOST) {
        throw e;
      }
      LOG.info(
          "session %s starts without its stored prefix: %s"
              .formatted(info.getSessionId(), e.getMessage()));
      return withPrefix(info, prefix.withoutStored(), host);
    }
  }
}
