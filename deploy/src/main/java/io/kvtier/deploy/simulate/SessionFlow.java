package io.kvtier.deploy.simulate;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.session.Footprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.PrefixChain;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.Plan;
import io.kvtier.v1.ResumeRequest;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SplittableRandom;
import org.jspecify.annotations.Nullable;

/** Engines and their sessions, from opening to close: prompts, decoding, resumptions. */
final class SessionFlow {
  private static final long SECOND_NS = 1_000_000_000L;
  private static final long PREFILL_TOKEN_NS = SECOND_NS / 4000;
  private static final long DECODE_TOKEN_NS = 25_000_000L;
  private static final long AGAIN_NS = SECOND_NS;
  private static final int OPEN_TRIES = 5;
  private static final int BATCH_PAGES = 64;

  /** Of the pages that a step needs, those that the hot set has not, once a page of new tokens. */
  private static final int READ_PAGES = 12;

  private final Cluster cluster;
  private final Workload workload;
  private final SplittableRandom random;
  private final Map<String, SimulatedSession> open = new LinkedHashMap<>();
  private int begun;
  private int comingBack;

  SessionFlow(Cluster cluster, Workload workload, SplittableRandom random) {
    this.cluster = cluster;
    this.workload = workload;
    this.random = random;
  }

  /** The sessions that engines have, by id. */
  Map<String, SimulatedSession> open() {
    return open;
  }

  boolean over() {
    return begun >= cluster.config.sessions() && open.isEmpty() && comingBack == 0;
  }

  private EventQueue time() {
    return cluster.time;
  }

  // ---- open

  /** Begins another conversation, if sessions are left. */
  void arrive() {
    if (begun < cluster.config.sessions()) {
      begun++;
      begin(workload.prompt(), OPEN_TRIES);
    }
  }

  private void begin(Workload.Prompt prompt, int tries) {
    try {
      open(prompt);
    } catch (KvtierException e) {
      if (tries > 1) {
        comingBack++;
        time()
            .after(
                5 * AGAIN_NS,
                () -> {
                  comingBack--;
                  begin(prompt, tries - 1);
                });
      } else {
        cluster.figures.refused++;
      }
    }
  }

  private void open(Workload.Prompt prompt) {
    int[] tokenIds = prompt.tokenIds(prompt.promptTokens());
    OpenRequest.Builder request =
        OpenRequest.newBuilder()
            .setGeometry(cluster.model.geometry)
            .setTokensMax(workload.tokensMax())
            .setDeviceBytesMax(cluster.model.deviceBytes(prompt.promptTokens()))
            .setIdleTimeoutMs(Workload.IDLE_TIMEOUT_MS);
    for (int id : tokenIds) {
      request.addTokenIds(id);
    }
    Session session = cluster.front.open(request.build(), prompt.tenant()).getSession();
    PrefixChain chain = cluster.model.chain(prompt);
    SimulatedSession opened = new SimulatedSession(prompt, chain, session, workload.turns());
    open.put(opened.id(), opened);
    opened.tokens = session.getReusedTokens();
    rely(opened);
    Figures figures = cluster.figures;
    figures.opened++;
    figures.open++;
    figures.openMost = Math.max(figures.openMost, figures.open);
    figures.promptTokens += prompt.promptTokens();
    figures.reusedTokens += opened.tokens;
    prefill(opened, prompt.promptTokens() - opened.tokens);
  }

  /** From now on the engine relies on what its worker has stored. */
  private void rely(SimulatedSession session) {
    Set<PageKey> before = session.relied;
    Attached there = attached(session);
    Set<PageKey> now = there == null ? Set.of() : new LinkedHashSet<>(there.keys());
    now.stream().filter(key -> !before.contains(key)).forEach(cluster.audit.pages::use);
    before.stream().filter(key -> !now.contains(key)).forEach(cluster.audit.pages::leave);
    session.relied = now;
  }

  // ---- tokens

  private void prefill(SimulatedSession session, int tokens) {
    time().after(tokens * PREFILL_TOKEN_NS, () -> prefilled(session, tokens));
  }

  private void prefilled(SimulatedSession session, int tokens) {
    Attached there = served(session);
    if (there == null) {
      again(session, () -> prefilled(session, tokens));
      return;
    }
    if (!append(session, there, tokens) || !plan(session, there)) {
      cluster.figures.refused++;
      close(session);
      return;
    }
    decode(session, workload.generated());
  }

  /** What its worker has of it; null: the worker is not there, or has it in another epoch. */
  @Nullable Attached attached(SimulatedSession session) {
    WorkerNode worker = cluster.worker(session.info.getWorkerTarget());
    Attached there = worker.sessions().get(session.id());
    return worker.reachable() && there != null && there.epoch == session.info.getEpoch()
        ? there
        : null;
  }

  /** The same, once it is resumed if need be; null: not now. */
  private @Nullable Attached served(SimulatedSession session) {
    Attached there = attached(session);
    if (there == null && resume(session)) {
      there = attached(session);
    }
    if (there != null) {
      there.usedNs = time().nowNs();
    }
    return there;
  }

  /** Does something a little later, if the session is not lost. */
  private void again(SimulatedSession session, Runnable what) {
    if (open.containsKey(session.id())) {
      time().after(AGAIN_NS, what);
    }
  }

  private boolean plan(SimulatedSession session, Attached there) {
    Plan plan;
    try {
      plan = cluster.front.plan(cluster.model.planRequest(session.info, session.tokens));
    } catch (KvtierException e) {
      return false;
    }
    WorkerNode worker = cluster.worker(session.info.getWorkerTarget());
    if (!worker.plan(there, plan.getDeviceBytes())) {
      return false;
    }
    cluster.audit.require(
        Rule.WITHIN_BOUND,
        worker.deviceBytes() <= worker.deviceBytesMax,
        () ->
            "%s promised %d of %d device bytes"
                .formatted(worker.id, worker.deviceBytes(), worker.deviceBytesMax));
    Figures figures = cluster.figures;
    figures.plans++;
    figures.planBytes += plan.getDeviceBytes();
    for (HeadPlan head : plan.getHeadsList()) {
      figures.heads++;
      switch (head.getHeadClass()) {
        case HEAD_CLASS_DENSE -> figures.headsDense++;
        case HEAD_CLASS_SPARSE -> figures.headsSparse++;
        default -> figures.headsStreamed++;
      }
    }
    return true;
  }

  /** Appends tokens and stores the pages that they fill; false: the tiers took not all of them. */
  private boolean append(SimulatedSession session, Attached there, int tokens) {
    int after = session.tokens + tokens;
    int pagesAfter = Footprint.of(session.info, after).pages();
    boolean stored = true;
    while (stored && there.pages < pagesAfter) {
      stored = store(session, there, Math.min(pagesAfter, there.pages + BATCH_PAGES));
    }
    if (stored) {
      session.tokens = after;
    }
    return stored;
  }

  private boolean store(SimulatedSession session, Attached there, int to) {
    List<PageKey> shared = new ArrayList<>();
    int sharedTo = Math.min(to, session.chain.pages());
    for (int page = there.pages; page < sharedTo; page++) {
      for (int layer = 0; layer < cluster.model.layers(); layer++) {
        shared.add(cluster.model.sharedKey(session.chain, page, layer));
        if (page == 0) {
          shared.add(cluster.model.sinkKey(session.chain, layer));
        }
      }
    }
    List<PageKey> own =
        cluster.fleet.ownKeys(session.info, Math.max(there.pages, session.chain.pages()), to);
    WorkerNode worker = cluster.worker(session.info.getWorkerTarget());
    there.shared.addAll(shared);
    there.own.addAll(own);
    there.pages = to;
    cluster.traffic.hold(worker, shared);
    List<PageKey> all = new ArrayList<>(shared);
    all.addAll(own);
    boolean stored = cluster.traffic.put(worker, all);
    if (stored) {
      rely(session);
    }
    return stored;
  }

  // ---- decode

  private void decode(SimulatedSession session, int left) {
    int tokens = Math.min(left, PageLayout.TOKENS);
    time().after(tokens * DECODE_TOKEN_NS, () -> decoded(session, tokens, left - tokens));
  }

  private void decoded(SimulatedSession session, int tokens, int left) {
    Attached there = served(session);
    if (there == null) {
      again(session, () -> decoded(session, tokens, left));
      return;
    }
    read(session, there);
    if (!append(session, there, tokens)) {
      cluster.figures.refused++;
      close(session);
      return;
    }
    cluster.figures.generatedTokens += tokens;
    if (left > 0) {
      decode(session, left);
    } else if (--session.turnsLeft > 0) {
      int said = workload.said();
      time().after(workload.thinkNs(), () -> prefill(session, said));
    } else {
      end(session);
    }
  }

  /** Reads some of the pages, more often late ones than early ones. */
  private void read(SimulatedSession session, Attached there) {
    if (there.pages == 0) {
      return;
    }
    List<PageKey> all = there.keys();
    Set<PageKey> wanted = new LinkedHashSet<>();
    for (int i = 0; i < READ_PAGES; i++) {
      wanted.add(all.get((int) (Math.sqrt(random.nextDouble()) * all.size())));
    }
    List<PageKey> keys = List.copyOf(wanted);
    WorkerNode worker = cluster.worker(session.info.getWorkerTarget());
    boolean[] served = cluster.traffic.read(worker, keys);
    cluster.figures.readsAsked += served.length;
    for (int i = 0; i < served.length; i++) {
      if (served[i]) {
        cluster.figures.readsServed++;
      } else {
        // The engine is told what is missing, and sends it again.
        cluster.figures.pagesLost++;
        boolean _ = cluster.traffic.put(worker, List.of(keys.get(i)));
      }
    }
  }

  // ---- resume

  /** Has the session served again; false: not now, or it is lost. */
  private boolean resume(SimulatedSession session) {
    String before = session.info.getWorkerTarget();
    try {
      session.info =
          cluster
              .front
              .resume(
                  ResumeRequest.newBuilder()
                      .setSessionId(session.id())
                      .setEpoch(session.info.getEpoch())
                      .setWorkerFailed(true)
                      .build(),
                  session.prompt.tenant())
              .getSession();
    } catch (KvtierException e) {
      if (e.code() == Code.NOT_FOUND || e.code() == Code.PRECONDITION) {
        lost(session, e);
      }
      return false;
    }
    cluster.figures.sessionsResumed++;
    cluster.figures.sessionsMoved += before.equals(session.info.getWorkerTarget()) ? 0 : 1;
    Attached there = attached(session);
    if (there == null) {
      return false;
    }
    rely(session);
    // The engine sends again what is not durable, or not known to be.
    int durable = Math.min(session.tokens, there.pages * PageLayout.TOKENS);
    int again = session.tokens - durable;
    int whole = Footprint.of(session.info, session.tokens).pages() * PageLayout.TOKENS;
    cluster.figures.replayedTokens += Math.max(0, whole - durable);
    session.tokens = durable;
    if (!append(session, there, again)) {
      return false;
    }
    // Where the worker has no room for it now, its heads are streamed until there is a plan.
    boolean _ = session.tokens == 0 || plan(session, there);
    return true;
  }

  private void lost(SimulatedSession session, KvtierException why) {
    cluster.figures.sessionsLost++;
    cluster.audit.broken(
        Rule.SESSION_KEPT, "session %s: %s".formatted(session.id(), why.getMessage()));
    drop(session);
  }

  // ---- the end

  private void end(SimulatedSession session) {
    if (begun < cluster.config.sessions() && workload.comesBack(session.tokens)) {
      begun++;
      comingBack++;
      Workload.Prompt next = workload.next(session.prompt, session.tokens);
      time()
          .after(
              workload.awayNs(),
              () -> {
                comingBack--;
                begin(next, OPEN_TRIES);
              });
    }
    close(session);
  }

  private void close(SimulatedSession session) {
    try {
      cluster.front.close(
          CloseRequest.newBuilder()
              .setSessionId(session.id())
              .setEpoch(session.info.getEpoch())
              .build());
    } catch (KvtierException e) {
      cluster.audit.broken(
          Rule.SESSION_KEPT, "session %s: %s".formatted(session.id(), e.getMessage()));
    }
    drop(session);
  }

  private void drop(SimulatedSession session) {
    open.remove(session.id());
    session.relied.forEach(cluster.audit.pages::leave);
    session.relied = Set.of();
    cluster.figures.closed++;
    cluster.figures.open--;
  }
}
