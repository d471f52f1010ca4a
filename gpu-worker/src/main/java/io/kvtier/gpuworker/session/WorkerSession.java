package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.invalid;
import static io.kvtier.KvtierException.requireInRange;
import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PrefixChain;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionBytes;
import io.kvtier.v1.TokenRange;
import java.util.List;
import java.util.UUID;
import java.util.function.Supplier;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;

/**
 * One session on this worker: its layers on the device, its pages on their way to the tier, its hot
 * set. Calls may come from any thread; each layer takes one at a time, and closing waits for all of
 * them. A call that is refused has changed nothing.
 */
public final class WorkerSession {
  private static final Logger LOG = Logger.getLogger(WorkerSession.class.getName());

  private final UUID id;
  private volatile Session info;
  private final LayerShape shape;

  private final SessionLayers layers;
  private final SessionHost host;
  private final SharedPages shared;
  private final OwnPages own;
  private final WriteBehind writeBehind;
  private final Staging staging;
  private final DeviceBudget budget;
  private final StepFetches fetches;
  private final HotSet hotSet;
  private final Prefetcher prefetcher;
  private final SessionPlanning planning;
  private final TailorMemory tailor;
  private final LayerGrowth growth;
  private final DecodeSteps steps;
  private final SessionLife life;
  private final PageRepair repair;
  private final MissingPages missing;
  private final int sharedPages;

  /** A session without tokens, whose prompt's pages are named by a chain. */
  static WorkerSession empty(Session info, PrefixChain chain, SessionHost host) {
    return new WorkerSession(info, Sessions.shapeOf(info), chain, host, null);
  }

  /** Takes the stored pages of all layers over. */
  void restore(Prefix prefix) {
    StoredReader reader = storedReader();
    for (int layer = 0; layer < layers.count(); layer++) {
      int tokens = reader.read(prefix.reused(layer, shape), layers.get(layer).device);
      writeBehind.setDurable(layer, tokens / TOKENS);
    }
  }

  /**
   * Takes over what is stored of a session that was attached before, one entry a layer. Pages that
   * it makes from now on may be there already, made by the worker that had it.
   */
  void resume(List<LayerPages> stored) {
    writeBehind.replaceOthers();
    StoredReader reader = storedReader();
    for (int layer = 0; layer < layers.count(); layer++) {
      LayerPages pages = stored.get(layer);
      if (!pages.keys().isEmpty()) {
        reader.read(pages, layers.get(layer).device);
        host.tier().hold(own.keys(pages.keys()));
        writeBehind.setDurable(layer, pages.keys().size());
      }
    }
  }

  private StoredReader storedReader() {
    return new StoredReader(
        shape,
        host.tier(),
        shared,
        fetches.codesFetcher(),
        pages -> budget.makeRoomForSketches(pages, shape.kvHeads()));
  }

  private WorkerSession(
      Session info,
      LayerShape shape,
      PrefixChain chain,
      SessionHost host,
      @Nullable WorkerSession parent) {
    this.id = Sessions.uuidOf(info.getSessionId());
    this.life = new SessionLife(info.getSessionId(), info.getEpoch());
    this.info = info;
    this.shape = shape;
    this.host = host;
    DeviceMemory memory = host.device().memory();
    long timeoutNs = host.limits().tierTimeoutNs();
    int count = info.getGeometry().getLayers();
    SessionLayer[] all = new SessionLayer[count];
    int[] durablePages = new int[count];
    boolean places = info.getMode() != PlanMode.PLAN_MODE_TAILORKV;
    int slotBytes = places ? LayerStep.stagingSlotBytes(shape) : 0;
    int finerBytes = places ? LayerStep.finerBytes(shape) : 0;
    if (places) {
      host.pool().admit(count * shape.exactRowBytes() + Staging.leastBytes(slotBytes, finerBytes));
    }
    this.staging = new Staging(memory, slotBytes, finerBytes);
    try {
      for (int layer = 0; layer < count; layer++) {
        DeviceLayer empty =
            parent == null
                ? SessionLayers.emptyLayer(layer, info, shape, host.device())
                : parent.layers.get(layer).device.fork();
        all[layer] = new SessionLayer(empty, shape, memory);
        durablePages[layer] = empty.pages();
      }
    } catch (RuntimeException e) {
      SessionLayers.release(all);
      staging.close();
      throw e;
    }
    this.layers = new SessionLayers(shape, all);
    this.sharedPages = durablePages[0];
    this.shared = new SharedPages(host.tier(), id);
    this.own = new OwnPages(shape, host.tier(), shared);
    this.writeBehind =
        new WriteBehind(
            host.tier(),
            Sessions.tenantOf(info),
            shared,
            host.background(),
            durablePages,
            host.limits().pendingBytesMax(),
            host.pending().newShare(),
            timeoutNs);
    this.hotSet = new HotSet(all);
    RowFetcher rowFetcher = new RowFetcher(shape, host.tier(), writeBehind, host.rates());
    CodesFetcher codesFetcher =
        new CodesFetcher(shape, memory, host.tier(), writeBehind, host.rates());
    this.fetches =
        new StepFetches(
            shape,
            staging,
            rowFetcher,
            codesFetcher,
            new NearAttention(shape, host.tier(), writeBehind, host.background(), timeoutNs),
            host.background(),
            timeoutNs);
    this.prefetcher =
        new Prefetcher(shape, rowFetcher, host.background(), info.getDeviceBytesMax());
    PlanSwitch switcher = new PlanSwitch(shape, memory, codesFetcher);
    this.budget =
        new DeviceBudget(
            info, shape, memory, host.pool(), all, staging, hotSet, switcher, life::tryWhileOpen);
    this.tailor = new TailorMemory(info, shape, memory, host.pool(), all);
    this.planning = new SessionPlanning(shape, layers, switcher, budget, tailor, fetches.near());
    this.growth = new LayerGrowth(id, info, shape, chain, writeBehind, budget, tailor);
    LayerStep layerStep =
        new LayerStep(
            shape,
            fetches,
            hotSet::isUsed,
            info.getDeviceBytesMax(),
            this::deviceBytes,
            host.rates());
    PageOuts pageOuts = new PageOuts(host.background(), life::tryWhileOpen);
    this.steps =
        new DecodeSteps(info.getSessionId(), shape, growth, layerStep, pageOuts, host.listener());
    this.repair = new PageRepair(shape, writeBehind);
    this.missing = new MissingPages(all, host.tier(), writeBehind);
    budget.join();
    if (parent == null) {
      budget.holdNoMoreThanFits();
    }
  }

  public Session info() {
    return info;
  }

  public LayerShape shape() {
    return shape;
  }

  // ---- prefill

  /** Appends a chunk of one layer; returns the layer's tokens. */
  public int append(int layer, int position, int tokens, float[] keys, float[] values) {
    return whileOpen(() -> {
      SessionLayer target = layers.get(layer);
      target.enter();
      try {
        target.requireNoTree(layer);
        growth.requireNext(layer, target.device.tokens(), position, tokens);
        try (var _ = growth.requireRoom(target, tokens)) {
          growth.append(target, layer, tokens, keys, values);
        }
        steps.forgetServed();
        target.queries = new float[0];
        return target.device.tokens();
      } finally {
        target.leave();
      }
    });
  }

  /**
   * Stores pages of a layer again that the tier has lost, of the rows that they were made of.
   * Returns the layer's tokens.
   */
  public int repair(int layer, int position, int tokens, float[] keys, float[] values) {
    return whileOpen(() -> {
      SessionLayer target = layers.get(layer);
      target.enter();
      try {
        TierSink sink = growth.sink(target, layer);
        repair.repair(target, layer, position, tokens, keys, values, sink);
        return target.device.tokens();
      } finally {
        target.leave();
      }
    });
  }

  /** Ranges of tokens whose pages no tier has: of a layer, and of the others that are not busy. */
  public List<TokenRange> missing(int layer) {
    return whileOpen(() -> missing.ranges(layer));
  }

  /**
   * Keeps the prompt's last queries of one layer until the plan is made. Returns the layer's
   * tokens.
   */
  public int setQueries(int layer, int window, float[] queries) {
    return whileOpen(() -> {
      SessionLayer target = layers.get(layer);
      target.enter();
      try {
        if (window > target.device.tokens()) {
          throw invalid(
              "queries has %d rows; layer %d has %d tokens", window, layer, target.device.tokens());
        }
        target.queries = queries;
        return target.device.tokens();
      } finally {
        target.leave();
      }
    });
  }

  /** Waits until all pages are stored, then as {@link #finish(int, boolean, PlanMaker)}. */
  public Plan finish(int tokens, PlanMaker planMaker) {
    return finish(tokens, false, planMaker);
  }

  /**
   * Makes the plan and brings the dense heads' codes onto the device.
   *
   * @param ahead whether not to wait until all pages are stored
   */
  public Plan finish(int tokens, boolean ahead, PlanMaker planMaker) {
    return whileOpen(() ->
        layers.whileStill(() -> {
          requireInRange("tokens", Integer.toUnsignedLong(tokens), 1, info.getTokensMax());
          layers.requireTokens(tokens);
          if (!ahead) {
            writeBehind.flush();
          }
          return planning.make(info, tokens, planMaker);
        }));
  }

  SessionPlanning planning() {
    return planning;
  }

  // ---- decode

  /** Appends new tokens to a layer, each after the one before, and attends their queries. */
  public StepResult step(
      int layer,
      int position,
      int tokens,
      float[] queries,
      float[] keys,
      float[] values,
      float[] hint) {
    return step(
        new TokenStep(layer, position, tokens, queries, keys, values, hint, new int[0], null));
  }

  /**
   * Attends the queries of new tokens of a layer, and appends these, or keeps them as its waiting
   * tree; what was accepted of the tree that waited before is appended first.
   */
  public StepResult step(TokenStep step) {
    return whileOpen(() -> {
      planning.require(info);
      int layer = step.layer();
      SessionLayer target = layers.get(layer);
      if (layer + 1 < layers.count()) {
        prefetch(layers.get(layer + 1), step);
      }
      return steps.step(target, step);
    });
  }

  /**
   * Appends nodes of a layer's waiting tree, a path from a root, and drops the others. Returns the
   * layer's tokens.
   */
  public int accept(int layer, int[] nodes) {
    return whileOpen(() -> steps.accept(layers.get(layer), layer, nodes));
  }

  /** Has rows brought for the next layer beside this one's work: after it they come too late. */
  private void prefetch(SessionLayer next, TokenStep step) {
    // Where the next layer is as long as it has not heard of this step.
    int expected = step.position() - step.acceptedCount();
    if (step.hint().length > 0) {
      int last = (step.tokens() - 1) * shape.qHeads() * shape.headDim();
      inBackground(() -> prefetcher.prefetch(next, expected, step.hint(), last));
    } else if (next.last.isWorthFetching()) {
      inBackground(() -> prefetcher.prefetchLast(next, expected));
    }
  }

  private void inBackground(Runnable work) {
    host.background().execute(() -> life.tryWhileOpen(work));
  }

  // ---- reading

  /** What dominates a query's attention in one layer. */
  public List<SessionReader.HeadRows> gather(
      int layer, float[] query, int tokensMax, boolean asPlanned) {
    return whileOpen(() -> {
      planning.require(info);
      return reader().gather(layer, layers.get(layer), query, tokensMax, asPlanned);
    });
  }

  /** Decoded rows of a token range, page by page. */
  public void load(int layer, int position, int tokens, SessionReader.RowsConsumer consumer) {
    whileOpen(() -> {
      reader().load(layer, layers.get(layer), position, tokens, consumer);
      return true;
    });
  }

  private SessionReader reader() {
    return new SessionReader(shape, host.tier(), writeBehind, fetches);
  }

  // ---- life

  /** A session that starts with all tokens of this one, which are stored in the tier first. */
  public WorkerSession fork(Session child) {
    if (!child.getGeometry().equals(info.getGeometry())) {
      throw invalid(
          "geometry of session %s is not that of session %s, which it forks",
          child.getSessionId(), info.getSessionId());
    }
    Sessions.requireBounds(child);
    return whileOpen(() -> layers.whileStill(() -> forkStill(child)));
  }

  /** The fork itself, while no layer moves: all have the same tokens, and every page is stored. */
  private WorkerSession forkStill(Session child) {
    int tokens = layers.requireEven();
    if (child.getTokensMax() < tokens) {
      throw invalid(
          "tokens_max is %d; the session that is forked has %d tokens already",
          child.getTokensMax(), tokens);
    }
    writeBehind.flush();
    // What the child appends need not be the tokens that its parent was opened with.
    WorkerSession fork = new WorkerSession(child, shape, PrefixChain.EMPTY, host, this);
    try {
      fork.shared.hold(shared.keys());
      Plan inherited = planning.plan();
      if (inherited != null) {
        // The child's layers hold the parent's codes of dense heads already: nothing is fetched.
        fork.planning.adopt(inherited, planning.policies());
      }
      return fork;
    } catch (KvtierException e) {
      fork.abandon();
      throw e;
    }
  }

  /** Runs a call of an epoch, which stays the session's until the call returns. */
  public <T> T inEpoch(long epoch, Supplier<T> call) {
    return life.inEpoch(epoch, call);
  }

  public long epoch() {
    return life.epoch();
  }

  /** Nanoseconds that nothing has been heard of the session. */
  long idleNs(long nowNs) {
    return life.idleNs(nowNs);
  }

  void requireEpoch(long epoch) {
    life.requireEpoch(epoch);
  }

  /**
   * Begins a newer epoch: calls of the former are over, and so are trees that wait.
   *
   * @return tokens that each layer has
   * @throws KvtierException PRECONDITION if the epoch is not newer
   */
  public int[] raiseEpoch(long epoch) {
    return life.raise(
        epoch,
        host.limits().tierTimeoutNs(),
        () -> {
          info = info.toBuilder().setEpoch(epoch).build();
          steps.dropTrees(layers.all());
          return layers.tokens();
        });
  }

  /** Tokens of each layer. */
  public int[] layerTokens() {
    return layers.tokens();
  }

  /** Of a fork: its first tokens, of every layer, whose pages are its parent's. */
  public int sharedTokens() {
    return sharedPages * TOKENS;
  }

  /**
   * Frees everything on the device and deletes the pages that no fork and no other session shares.
   * Waits for calls under way. Called again, it only deletes what could not be deleted before.
   *
   * @throws KvtierException if the tier does not delete; the device's memory is free all the same
   */
  public void close() {
    end(true);
  }

  /**
   * Frees everything on the device; the pages stay, so that another worker can go on. Waits, and
   * may be called again, as {@link #close}.
   */
  public void leave() {
    end(false);
  }

  private void end(boolean deletes) {
    life.close(wasOpen -> {
      if (wasOpen) {
        writeBehind.close();
        tailor.release();
        own.leave(SessionLayers.release(layers.all()), deletes);
        staging.close();
        budget.leave();
      }
      own.settle();
    });
  }

  /** Frees a session that nobody has seen yet; no page is deleted. */
  void abandon() {
    try {
      leave();
    } catch (KvtierException e) {
      LOG.log(Level.WARNING, "pages of session {0} stay leased: {1}", new Object[] {id, e});
    }
  }

  // ---- state

  /** Tokens of a layer. */
  public int tokens(int layer) {
    return layers.tokens(layer);
  }

  /** Tokens of a layer whose pages the tier has acknowledged. */
  public int durableTokens(int layer) {
    return writeBehind.durablePages(layer) * TOKENS;
  }

  /** Bytes of pages that wait to be stored, those that wait to be encoded included. */
  long pendingBytes() {
    return layers.leftBytes() + writeBehind.pendingBytes();
  }

  /** The session's bytes. */
  public SessionBytes bytes(long device) {
    return layers.bytes(device);
  }

  /** Bytes the session holds on the device now. */
  public long deviceBytes() {
    return hotSet.bytes() + layers.residentBytes() + tailor.bufferBytes();
  }

  /** Of these, bytes of rows that it keeps for later steps. */
  long hotSetBytes() {
    return hotSet.bytes();
  }

  private <T> T whileOpen(Supplier<T> call) {
    return life.whileOpen(call);
  }
}
