package io.kvtier.deploy.simulate;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.lead.Workers;
import io.kvtier.gpuworker.session.Footprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.PrefixChain;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.Session;
import io.kvtier.v1.SharedPrefix;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.SplittableRandom;

/**
 * The workers as the coordinator meets them: they answer at once or not at all, and now and then
 * the answer is lost.
 */
final class Fleet implements Workers {
  /** What a lost tier had told is forgotten with its lease; all else within a second. */
  private static final long TOLD_WITHIN_NS = Cluster.NODE_LEASE_NS + 2_000_000_000L;

  private final Cluster cluster;
  private final SplittableRandom random;

  Fleet(Cluster cluster, SplittableRandom random) {
    this.cluster = cluster;
    this.random = random;
  }

  private WorkerNode reach(String target) {
    WorkerNode worker = cluster.worker(target);
    if (!worker.reachable()) {
      throw new KvtierException(Code.UNAVAILABLE, worker.id + " does not answer");
    }
    return worker;
  }

  /** An answer is lost once all is done. */
  private boolean answerLost() {
    boolean lost = random.nextDouble() < cluster.config.lostAnswers();
    cluster.figures.answersLost += lost ? 1 : 0;
    return lost;
  }

  @Override
  public AttachResponse attach(AttachRequest request) {
    WorkerNode worker = reach(request.getSession().getWorkerTarget());
    AttachResponse response =
        request.getResume()
            ? resume(worker, request.getSession(), request.getPrefix())
            : open(worker, request.getSession(), request.getPrefix());
    if (answerLost()) {
      throw new KvtierException(Code.UNAVAILABLE, worker.id + " did not answer in time");
    }
    return response;
  }

  private AttachResponse open(WorkerNode worker, Session session, SharedPrefix prefix) {
    requireEvenLoad(worker.target);
    Attached attached = attached(worker, session);
    List<PageKey> keys = named(session, prefix);
    if (!keys.isEmpty()) {
      requireTrue(keys);
      cluster.traffic.hold(worker, keys);
      if (all(cluster.traffic.read(worker, keys))) {
        attached.shared.addAll(keys);
        attached.pages = pagesOf(keys);
      } else {
        cluster.traffic.letGo(worker, keys);
      }
    }
    return AttachResponse.newBuilder().setReusedTokens(attached.pages * PageLayout.TOKENS).build();
  }

  private Attached attached(WorkerNode worker, Session session) {
    return worker.attach(session, Footprint.of(session, 1).fixedBytes(), cluster.time.nowNs());
  }

  /** The pages of a prompt that are stored and lie outside the window, the sink rows' last. */
  private List<PageKey> named(Session session, SharedPrefix prefix) {
    int stored = prefix.getChecksumsCount() / cluster.model.layers();
    int pages = Math.min(stored, Footprint.of(session, prefix.getPromptTokens()).pages());
    return cluster.model.named(prefix, pages);
  }

  /** Pages of each layer among these keys and the sink rows'. */
  private int pagesOf(List<PageKey> keys) {
    return keys.isEmpty() ? 0 : keys.size() / cluster.model.layers() - 1;
  }

  private static boolean all(boolean[] served) {
    for (boolean each : served) {
      if (!each) {
        return false;
      }
    }
    return true;
  }

  private void requireTrue(List<PageKey> keys) {
    for (PageKey key : keys) {
      cluster.audit.require(
          Rule.TRUE_PREFIX,
          cluster.audit.pages.isOrWasStored(key, cluster.time.nowNs() - TOLD_WITHIN_NS),
          () -> "the directory names page %s, which no tier has".formatted(key));
    }
  }

  private void requireEvenLoad(String target) {
    int on = cluster.front.sessionsOn(target);
    double mean = (double) cluster.front.sessionCount() / cluster.config.workers();
    cluster.audit.require(
        Rule.EVEN_LOAD,
        on <= 1.5 * mean + 4,
        () -> "%s gets one more session; it has %d, the mean is %.1f".formatted(target, on, mean));
  }

  // ---- resume

  private AttachResponse resume(WorkerNode worker, Session session, SharedPrefix prefix) {
    Attached here = worker.sessions().get(session.getSessionId());
    if (here == null) {
      here = attached(worker, session);
      readBack(worker, here, prefix);
    } else if (session.getEpoch() <= here.epoch) {
      throw KvtierException.precondition(
          "epoch %d is not newer than %d", session.getEpoch(), here.epoch);
    } else {
      here.epoch = session.getEpoch();
      here.usedNs = cluster.time.nowNs();
    }
    return AttachResponse.newBuilder()
        .addAllLayerTokens(
            Collections.nCopies(cluster.model.layers(), here.pages * PageLayout.TOKENS))
        .build();
  }

  /** Takes over as many pages as are stored without a gap: those of the prompt, then its own. */
  private void readBack(WorkerNode worker, Attached session, SharedPrefix prefix) {
    List<PageKey> shared = named(session.info, prefix);
    int pages = pagesOf(shared);
    if (pages > 0) {
      cluster.traffic.hold(worker, shared);
      if (!all(cluster.traffic.read(worker, shared))) {
        cluster.traffic.letGo(worker, shared);
        return;
      }
    }
    session.shared.addAll(shared);
    session.pages = pages;
    // Behind pages of the prompt that are not stored there can be none of its own.
    boolean more = pages == PrefixChain.of(prefix.getHashes()).pages();
    while (more) {
      List<PageKey> own = ownKeys(session.info, session.pages, session.pages + 1);
      cluster.traffic.hold(worker, own);
      more = all(cluster.traffic.read(worker, own));
      if (more) {
        session.own.addAll(own);
        session.pages++;
      } else {
        cluster.traffic.letGo(worker, own);
      }
    }
    session.keys().forEach(key -> cluster.figures.bytesReadBack += cluster.traffic.lengthOf(key));
  }

  /** Keys of a session's own pages, in all layers. */
  List<PageKey> ownKeys(Session session, int from, int to) {
    List<PageKey> keys = new ArrayList<>();
    for (int page = from; page < to; page++) {
      for (int layer = 0; layer < cluster.model.layers(); layer++) {
        keys.add(cluster.model.ownKey(session.getSessionId(), page, layer));
      }
    }
    return keys;
  }

  // ---- the end

  @Override
  public boolean answers(String target) {
    return cluster.worker(target).reachable();
  }

  @Override
  public boolean detach(Session session, boolean keepPages) {
    WorkerNode worker = cluster.worker(session.getWorkerTarget());
    if (!worker.reachable()) {
      return false;
    }
    free(worker, session.getSessionId(), session.getEpoch(), keepPages);
    return !answerLost();
  }

  @Override
  public void detachLater(Session session, boolean keepPages) {
    // The call itself may be lost: the worker has the session until it is idle.
    if (!answerLost()) {
      boolean _ = detach(session, keepPages);
    }
  }

  /** A worker frees a session that it has in this epoch or in an older one. */
  void free(WorkerNode worker, String id, long epoch, boolean keepPages) {
    Attached freed = worker.detach(id, epoch);
    if (freed != null) {
      leave(worker, freed, keepPages);
    }
    WorkerNode.Left again = worker.undone().poll();
    if (again != null) {
      leave(worker, again.session(), again.keepPages());
    }
  }

  private void leave(WorkerNode worker, Attached freed, boolean keepPages) {
    boolean done =
        keepPages
            ? cluster.traffic.letGo(worker, freed.own)
            : cluster.traffic.delete(worker, freed.own);
    cluster.traffic.letGo(worker, freed.shared);
    if (!done && !keepPages) {
      worker.undone().add(new WorkerNode.Left(new Attached(freed), false));
    }
  }
}
