package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.precondition;

import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.gpuworker.trace.TraceStep;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/**
 * Serves the steps of a session's layers, resolves the trees that wait with them, and tells of each
 * step. A step that is refused has changed nothing: accepted tokens count as new ones while it is
 * attended, and are appended with its own. Safe for any number of threads.
 */
final class DecodeSteps {
  private final String sessionId;
  private final LayerShape shape;
  private final LayerGrowth growth;
  private final LayerStep steps;
  private final PageOuts pageOuts;
  private final StepListener listener;
  private final AtomicReference<@Nullable ServedStep> served = new AtomicReference<>();

  DecodeSteps(
      String sessionId,
      LayerShape shape,
      LayerGrowth growth,
      LayerStep steps,
      PageOuts pageOuts,
      StepListener listener) {
    this.sessionId = sessionId;
    this.shape = shape;
    this.growth = growth;
    this.steps = steps;
    this.pageOuts = pageOuts;
    this.listener = listener;
  }

  /** Attends the queries of new tokens; appends these, or keeps them as the layer's tree. */
  StepResult step(SessionLayer target, TokenStep step) {
    long startNs = System.nanoTime();
    StepResult result;
    String classes;
    boolean left;
    target.enter();
    try {
      ServedStep last = served.get();
      if (last != null && last.is(step)) {
        return last.result();
      }
      TokenTree waiting = requireResolved(target, step.layer(), step.accepted());
      TokenTree tree =
          step.isTree()
              ? new TokenTree(step.parents(), step.keys(), step.values(), shape.rowLength())
              : null;
      int longest = tree == null ? step.tokens() : tree.depth();
      int have = target.device.tokens() + step.acceptedCount();
      growth.requireNext(step.layer(), have, step.position(), longest);
      NewRows rows = NewRows.of(step, waiting, tree, shape.rowLength());
      int appended = rows.appended(step.tokens());
      try (var _ = growth.requireRoom(target, appended)) {
        classes = target.classes;
        result = steps.attend(target, step.tokens(), step.queries(), rows);
        if (appended > 0) {
          growth.appendAhead(target, step.layer(), appended, rows.keys(), rows.values());
        }
      }
      target.tree = tree;
      served.set(new ServedStep(step, result));
      left = target.hasLeft();
    } finally {
      target.leave();
    }
    if (left) {
      pageOuts.add(target);
    }
    listener.stepped(traced(step, result, classes, startNs));
    return result;
  }

  /** Something else was sent since the last step. */
  void forgetServed() {
    served.set(null);
  }

  /** Drops the trees that wait; no call is under way. */
  void dropTrees(SessionLayer[] layers) {
    for (SessionLayer layer : layers) {
      layer.tree = null;
    }
    ServedStep last = served.get();
    if (last != null && last.step().isTree()) {
      forgetServed();
    }
  }

  /** Appends accepted nodes of a layer's waiting tree and drops the others; the layer's tokens. */
  int accept(SessionLayer target, int layer, int[] nodes) {
    target.enter();
    try {
      TokenTree waiting = requireResolved(target, layer, nodes);
      forgetServed();
      if (waiting != null && nodes.length > 0) {
        float[] keys = new float[nodes.length * shape.rowLength()];
        float[] values = new float[keys.length];
        waiting.copyKeys(nodes, keys, 0);
        waiting.copyValues(nodes, values, 0);
        try (var _ = growth.requireRoom(target, nodes.length)) {
          growth.append(target, layer, nodes.length, keys, values);
        }
      }
      target.tree = null;
      return target.device.tokens();
    } finally {
      target.leave();
    }
  }

  /** The tree that waits with a layer, once what was accepted of it is known to be a path. */
  private static @Nullable TokenTree requireResolved(
      SessionLayer target, int layer, int @Nullable [] accepted) {
    TokenTree waiting = target.tree;
    if (accepted == null) {
      target.requireNoTree(layer);
      return null;
    }
    if (waiting == null) {
      throw precondition(
          "accepted has %d tokens and no tree waits with layer %d; leave it out",
          accepted.length, layer);
    }
    waiting.requirePath(accepted);
    return waiting;
  }

  private TraceStep traced(TokenStep step, StepResult result, String classes, long startNs) {
    return new TraceStep(
        sessionId,
        step.layer(),
        step.position(),
        step.tokens(),
        listener.sinceStartNs(startNs),
        System.nanoTime() - startNs,
        result.unhiddenNs(),
        result.candidates(),
        result.selected(),
        result.hit(),
        result.late(),
        result.fetched(),
        result.near(),
        result.bytesFetched(),
        result.bytesWasted(),
        classes);
  }
}
