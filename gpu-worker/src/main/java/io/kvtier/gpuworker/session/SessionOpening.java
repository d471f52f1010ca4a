package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.page.PrefixChain;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import java.util.List;
import java.util.logging.Logger;

/** How a session begins: with what is stored of its prompt, and under the plan it came with. */
public final class SessionOpening {
  private static final Logger LOG = Logger.getLogger(SessionOpening.class.getName());

  private static final int ATTEMPTS_MAX = 3;

  private SessionOpening() {}

  /**
   * A session with the tokens of its prefix that are stored; honours the plan it was opened with,
   * if it was. If a page of the prefix is not stored any more, the session has no tokens: they are
   * sent anew.
   */
  public static WorkerSession open(Session info, Prefix prefix, SessionHost host) {
    Sessions.requireBounds(info);
    requireDevice(info, host);
    DeviceBudget.requireFixed(info);
    List<List<HeadPolicy>> policies =
        info.hasPlan() ? PlanSwitch.policiesOf(info.getPlan(), info) : List.of();
    WorkerSession session = withPrefix(info, prefix, host);
    try {
      if (info.hasPlan()) {
        session.planning().adopt(info.getPlan(), policies);
      }
      return session;
    } catch (KvtierException e) {
      session.abandon();
      throw e;
    }
  }

  /**
   * A session that was attached before, with as many of its tokens as the tiers have without a gap,
   * under the plan that it had. Where it has outgrown that, heads are demoted until it fits.
   *
   * @throws KvtierException UNAVAILABLE if the tiers do not tell what they have
   */
  public static WorkerSession resume(Session info, Prefix prefix, SessionHost host) {
    Sessions.requireBounds(info);
    requireDevice(info, host);
    List<List<HeadPolicy>> policies =
        info.hasPlan() ? PlanSwitch.policiesOf(info.getPlan(), info) : List.of();
    for (int attempt = 1; ; attempt++) {
      // A fork names its own pages by its id, whatever prompt its ancestor was opened with.
      PrefixChain chain = info.getAncestorsCount() == 0 ? prefix.chain() : PrefixChain.EMPTY;
      WorkerSession session = WorkerSession.empty(info, chain, host);
      try {
        StoredPages stored = new StoredPages(info, prefix, session.shape());
        session.resume(stored.longest(host.tier()));
        if (info.hasPlan()) {
          session.planning().adoptWithinBudget(info.getPlan(), policies);
        }
        return session;
      } catch (KvtierException e) {
        session.abandon();
        // A page that went between the question and the reading: what is left is asked for anew.
        if (e.code() != Code.LOST || attempt == ATTEMPTS_MAX) {
          throw e;
        }
      }
    }
  }

  /** Refuses what the device cannot attend to: with this code another worker is asked. */
  private static void requireDevice(Session info, SessionHost host) {
    boolean pages = info.getMode() != PlanMode.PLAN_MODE_TAILORKV;
    boolean finer = GeometryLimits.codec(info.getGeometry()).hasRest();
    if (pages && finer && !host.device().attendsFiner()) {
      throw new KvtierException(
          Code.EXHAUSTED,
          ("code_bits is %d and the worker's device (%s) attends to 4 bits alone; open the session"
                  + " with 4, or start a worker with --device cpu")
              .formatted(info.getGeometry().getCodeBits(), host.device().name()));
    }
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
