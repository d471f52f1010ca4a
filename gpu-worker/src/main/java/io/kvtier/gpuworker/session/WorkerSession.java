package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.invalid;
import static io.kvtier.KvtierException.precondition;
import static io.kvtier.KvtierException.requireInRange;
import static io.kvtier.page.PageLayout.TOKENS;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import io.kvtier.KvtierException;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.tailor.TailorLayer;
import io.kvtier.page.PageKey;
import io.kvtier.page.PrefixChain;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionBytes;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * One session on this worker: its layers on the device, its pages on their way to the tier, its hot
 * set. Calls may come from any thread; each layer takes one at a time, and closing waits for all of
 * them. A call that is refused has changed nothing.
 */
public final class WorkerSession {
  private final UUID id;
  private final Session info;
  private final LayerShape shape;

  private final SessionLayer[] layers;
  private final SessionHost host;
  private final SharedPages shared;
  private final WriteBehind writeBehind;
  private final StepFetches fetches;
  private final HotSet hotSet;
  private final Prefetcher prefetcher;
  private final PlanSwitch switcher;
  private final DeviceBudget budget;
  private final LayerGrowth growth;
  private final DecodeSteps steps;
  private final ReentrantReadWriteLock life = new ReentrantReadWriteLock();
  private volatile @Nullable Plan plan;
  private boolean closed;
  private List<PageKey> undeleted = List.of();

  /** A session without tokens, whose prompt's pages are named by a chain. */
  static WorkerSession empty(Session info, PrefixChain chain, SessionHost host) {
    return new WorkerSession(info, Sessions.shapeOf(info), chain, host, null);
  }

  /** Takes the stored pages of all layers over. */
  void restore(Prefix prefix) {
    PrefixReader reader =
        new PrefixReader(prefix, shape, host.tier(), shared, fetches.codesFetcher());
    for (int layer = 0; layer < layers.length; layer++) {
      int tokens = reader.read(layer, layers[layer].device);
      writeBehind.setDurable(layer, tokens / TOKENS);
    }
  }

  private WorkerSession(
      Session info,
      LayerShape shape,
      PrefixChain chain,
      SessionHost host,
      @Nullable WorkerSession parent) {
    this.id = Sessions.uuidOf(info.getSessionId());
    this.info = info;
    this.shape = shape;
    this.host = host;
    DeviceMemory memory = host.device().memory();
    long timeoutNs = host.limits().tierTimeoutNs();
    int count = info.getGeometry().getLayers();
    this.layers = new SessionLayer[count];
    int[] durablePages = new int[count];
    try {
      for (int layer = 0; layer < count; layer++) {
        DeviceLayer empty = parent == null ? newLayer(layer) : parent.forkLayer(layer);
        layers[layer] = new SessionLayer(empty, shape, memory);
        durablePages[layer] = empty.pages();
      }
    } catch (RuntimeException e) {
      releaseLayers();
      throw e;
    }
    this.shared = new SharedPages(host.tier());
    this.writeBehind =
        new WriteBehind(
            host.tier(),
            shared,
            host.background(),
            durablePages,
            host.limits().pendingBytesMax(),
            timeoutNs);
    this.hotSet = new HotSet(layers);
    RowFetcher rowFetcher = new RowFetcher(shape, host.tier(), writeBehind);
    CodesFetcher codesFetcher = new CodesFetcher(shape, memory, host.tier(), writeBehind);
    this.fetches =
        new StepFetches(shape, memory, rowFetcher, codesFetcher, host.background(), timeoutNs);
    this.prefetcher = new Prefetcher(rowFetcher);
    this.switcher = new PlanSwitch(shape, memory, codesFetcher);
    this.budget = new DeviceBudget(info, shape, memory, hotSet, switcher, this::deviceBytes);
    this.growth = new LayerGrowth(id, info, shape, chain, writeBehind, budget);
    LayerStep layerStep =
        new LayerStep(shape, fetches, info.getDeviceBytesMax(), this::deviceBytes);
    this.steps = new DecodeSteps(info.getSessionId(), shape, growth, layerStep, host.listener());
    if (parent == null) {
      budget.holdNoMoreThanFits(layers);
    }
  }

  /** TailorKV's method places whole layers and pages nothing out. */
  private DeviceLayer newLayer(int layer) {
    return info.getMode() == PlanMode.PLAN_MODE_TAILORKV
        ? new TailorLayer(info.getGeometry().getLayers(), shape)
        : host.device().newLayer(layer, shape);
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
      SessionLayer target = layer(layer);
      target.lock.lock();
      try {
        target.requireNoTree(layer);
        growth.requireNext(layer, target.device.tokens(), position, tokens);
        growth.requireRoom(target, tokens);
        growth.append(target, layer, tokens, keys, values);
        target.queries = new float[0];
        return target.device.tokens();
      } finally {
        target.lock.unlock();
      }
    });
  }

  /**
   * Keeps the prompt's last queries of one layer until the plan is made. Returns the layer's
   * tokens.
   */
  public int setQueries(int layer, int window, float[] queries) {
    return whileOpen(() -> {
      SessionLayer target = layer(layer);
      target.lock.lock();
      try {
        if (window > target.device.tokens()) {
          throw invalid(
              "queries has %d rows; layer %d has %d tokens", window, layer, target.device.tokens());
        }
        target.queries = queries;
        return target.device.tokens();
      } finally {
        target.lock.unlock();
      }
    });
  }

  /**
   * Waits until all pages are stored, makes the plan and brings the dense heads' codes onto the
   * device.
   */
  public Plan finish(int tokens, PlanMaker planMaker) {
    return whileOpen(() ->
        withAllLayers(() -> {
          requireTokens(tokens);
          writeBehind.flush();
          Plan made =
              info.hasPlan()
                  ? info.getPlan()
                  : planMaker.makePlan(
                      info,
                      tokens,
                      new ProfileMaker(shape, switcher).curves(layers, tokens),
                      budget.fixedBytes(tokens),
                      shape.pages(tokens));
          adopt(made, PlanSwitch.policiesOf(made, info.getGeometry()));
          return made;
        }));
  }

  private void requireTokens(int tokens) {
    requireInRange("tokens", Integer.toUnsignedLong(tokens), 1, info.getTokensMax());
    for (int layer = 0; layer < layers.length; layer++) {
      int have = layers[layer].device.tokens();
      if (have != tokens) {
        throw precondition(
            "finish says %d tokens, layer %d has %d; send the rest first", tokens, layer, have);
      }
    }
  }

  /** Brings all layers under a plan, or changes nothing. */
  void adopt(Plan made, List<List<HeadPolicy>> policies) {
    withAllLayers(() -> {
      switcher.apply(layers, policies);
      hotSet.resize(made.getHotSetBytes());
      plan = made;
      return made;
    });
  }

  /** Runs a call while no layer is in another's hands; locks are taken in the order of layers. */
  @CanIgnoreReturnValue
  private <T> T withAllLayers(Supplier<T> call) {
    int locked = 0;
    try {
      for (; locked < layers.length; locked++) {
        layers[locked].lock.lock();
      }
      return call.get();
    } finally {
      while (locked > 0) {
        layers[--locked].lock.unlock();
      }
    }
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
      requirePlanned();
      int layer = step.layer();
      StepResult result = steps.step(layer(layer), step);
      if (step.hint().length > 0 && layer + 1 < layers.length) {
        int last = (step.tokens() - 1) * shape.qHeads() * shape.headDim();
        // Where the next layer is as long as it has not heard of this step.
        int expected = step.position() - step.acceptedCount();
        host.background().execute(() -> prefetch(layer + 1, expected, step.hint(), last));
      }
      return result;
    });
  }

  /**
   * Appends nodes of a layer's waiting tree, a path from a root, and drops the others. Returns the
   * layer's tokens.
   */
  public int accept(int layer, int[] nodes) {
    return whileOpen(() -> steps.accept(layer(layer), layer, nodes));
  }

  private void prefetch(int layer, int position, float[] hint, int at) {
    if (!life.readLock().tryLock()) {
      return;
    }
    try {
      if (!closed) {
        prefetcher.prefetch(layers[layer], position, hint, at);
      }
    } finally {
      life.readLock().unlock();
    }
  }

  // ---- reading

  /** What dominates a query's attention in one layer. */
  public List<SessionReader.HeadRows> gather(
      int layer, float[] query, int tokensMax, boolean asPlanned) {
    return whileOpen(() -> {
      requirePlanned();
      return reader().gather(layer, layer(layer), query, tokensMax, asPlanned);
    });
  }

  /** Decoded rows of a token range, page by page. */
  public void load(int layer, int position, int tokens, SessionReader.RowsConsumer consumer) {
    whileOpen(() -> {
      reader().load(layer, layer(layer), position, tokens, consumer);
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
    return whileOpen(() -> withAllLayers(() -> forkStill(child)));
  }

  /** The fork itself, while no layer moves: all have the same tokens, and every page is stored. */
  private WorkerSession forkStill(Session child) {
    int tokens = layers[0].device.tokens();
    for (int layer = 1; layer < layers.length; layer++) {
      int have = layers[layer].device.tokens();
      if (have != tokens) {
        throw precondition(
            "layer 0 has %d tokens, layer %d has %d; fork between steps", tokens, layer, have);
      }
    }
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
    } catch (KvtierException e) {
      fork.letGo();
      throw e;
    }
    Plan inherited = plan;
    if (inherited != null) {
      // The child's layers hold the parent's codes of dense heads already: nothing is fetched,
      // nothing can fail.
      fork.adopt(inherited, Stream.of(layers).map(layer -> layer.policies).toList());
    }
    return fork;
  }

  private DeviceLayer forkLayer(int layer) {
    return layers[layer].device.fork();
  }

  /**
   * Frees everything on the device and deletes the pages that no fork and no other session shares.
   * Waits for calls under way. Called again, it only deletes what could not be deleted before.
   *
   * @throws KvtierException if the tier does not delete; the device's memory is free all the same
   */
  public void close() {
    life.writeLock().lock();
    try {
      if (!closed) {
        undeleted = letGo().stream().filter(key -> !key.isOfPrefix()).toList();
      }
      if (!undeleted.isEmpty()) {
        host.tier().delete(undeleted);
        undeleted = List.of();
      }
      shared.letGo();
    } finally {
      life.writeLock().unlock();
    }
  }

  /** Frees a session that nobody has seen yet; no page is deleted. */
  void abandon() {
    letGo();
    shared.letGo();
  }

  /** Frees everything on the device; returns the keys of the pages that no fork shares. */
  @CanIgnoreReturnValue
  private List<PageKey> letGo() {
    closed = true;
    writeBehind.close();
    return releaseLayers();
  }

  private List<PageKey> releaseLayers() {
    List<PageKey> unshared = new ArrayList<>();
    for (SessionLayer layer : layers) {
      if (layer != null) {
        layer.rows.reset(0);
        unshared.addAll(layer.device.release());
      }
    }
    return unshared;
  }

  // ---- state

  /** Tokens of a layer. */
  public int tokens(int layer) {
    SessionLayer target = layer(layer);
    target.lock.lock();
    try {
      return target.device.tokens();
    } finally {
      target.lock.unlock();
    }
  }

  /** Tokens of a layer whose pages the tier has acknowledged. */
  public int durableTokens(int layer) {
    return writeBehind.durablePages(layer) * TOKENS;
  }

  /** The session's bytes. */
  public SessionBytes bytes(long device) {
    long tokens = 0;
    long pages = 0;
    for (SessionLayer layer : layers) {
      tokens += layer.device.tokens();
      pages += layer.device.pages();
    }
    return SessionBytes.newBuilder()
        .setDevice(device)
        .setDeviceFull(tokens * shape.rowLength() * 2 * Short.BYTES)
        .setTier(pages * shape.layout().pageLength())
        .build();
  }

  /** Bytes the session holds on the device now. */
  public long deviceBytes() {
    long bytes = hotSet.bytes();
    for (SessionLayer layer : layers) {
      bytes += layer.device.residentBytes();
    }
    return bytes;
  }

  private SessionLayer layer(int layer) {
    if (layer < 0 || layer >= layers.length) {
      throw invalid(
          "layer is %s; it must be 0..%d", Integer.toUnsignedString(layer), layers.length - 1);
    }
    return layers[layer];
  }

  private void requirePlanned() {
    if (plan == null) {
      throw precondition(
          "session %s has no plan yet; finish its prefill first", info.getSessionId());
    }
  }

  private <T> T whileOpen(Supplier<T> call) {
    life.readLock().lock();
    try {
      if (closed) {
        throw Sessions.unknown(info.getSessionId());
      }
      return call.get();
    } finally {
      life.readLock().unlock();
    }
  }
}
