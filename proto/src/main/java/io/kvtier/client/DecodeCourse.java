package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.AcceptedPath;
import io.kvtier.v1.DecodeAccept;
import io.kvtier.v1.DecodeRequest;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.DecodeStep;
import io.kvtier.v1.TokenRange;
import org.jspecify.annotations.Nullable;

/**
 * How messages of a decode come to their answers, whatever fails on the way. A message whose answer
 * is lost may have been served or not: the resumed session tells how many tokens each layer has,
 * and from that follows what is sent again. One thread.
 */
final class DecodeCourse implements AutoCloseable {
  /** Rounds of repairs in which nothing but repairs got on, before they are given up. */
  private static final int REPAIRS_MAX = 4;

  private final SessionLink link;

  private @Nullable Duplex<DecodeRequest, DecodeResponse> stream;

  DecodeCourse(SessionLink link) {
    this.link = link;
  }

  /** Sends a step until it is served. */
  DecodeResponse step(DecodeStep step) {
    int layer = step.getLayer();
    DecodeStep asked = step;
    long deadlineNs = link.deadlineNs();
    int repairs = 0;
    while (true) {
      try {
        sendTrees();
        DecodeResponse answer = exchange(DecodeRequest.newBuilder().setStep(asked).build());
        if (answer.getMissingCount() == 0) {
          served(asked, answer);
          return answer;
        }
        repair(answer, ++repairs);
      } catch (KvtierException e) {
        resume(e, deadlineNs);
        // Of a message whose answer was lost, what it accepted may have been appended.
        int accepted = asked.getAccepted().getNodesCount();
        if (asked.hasAccepted() && appended(layer, accepted) && isTree(asked)) {
          take(layer, asked.getAccepted());
          asked = asked.toBuilder().clearAccepted().build();
        }
      }
    }
  }

  /** Sends what was accepted of a layer's tree until it is appended. */
  DecodeResponse accept(DecodeAccept accept) {
    int layer = accept.getLayer();
    long deadlineNs = link.deadlineNs();
    while (true) {
      try {
        sendTrees();
        DecodeResponse answer = exchange(DecodeRequest.newBuilder().setAccept(accept).build());
        take(layer, accept.getAccepted());
        return answer;
      } catch (KvtierException e) {
        resume(e, deadlineNs);
        int accepted = accept.getAccepted().getNodesCount();
        if (accepted == 0) {
          // The tree is gone with the worker, which is what was asked for.
          link.trees().remove(layer);
        }
        if (accepted == 0 || appended(layer, accepted)) {
          take(layer, accept.getAccepted());
          return DecodeResponse.newBuilder()
              .setLayer(layer)
              .setPosition(link.resumedTokens(layer))
              .build();
        }
      }
    }
  }

  private static boolean isTree(DecodeStep step) {
    return step.getParentsCount() > 0;
  }

  private Duplex<DecodeRequest, DecodeResponse> open() {
    Duplex<DecodeRequest, DecodeResponse> opened = stream;
    if (opened == null) {
      opened = link.openDecode();
      stream = opened;
    }
    return opened;
  }

  private DecodeResponse exchange(DecodeRequest request) {
    open().write(request);
    return open().read();
  }

  /** Brings the session to a worker that serves it, or gives the failure back. */
  private void resume(KvtierException e, long deadlineNs) {
    // Any refusal ends a stream; the next message opens another.
    close();
    stream = null;
    if (!link.recoversFrom(e) || System.nanoTime() > deadlineNs) {
      throw e;
    }
    link.recover(e, deadlineNs);
  }

  /** Whether the worker has so many tokens of a layer more than we know of. */
  private boolean appended(int layer, int tokens) {
    ReplayTail tail = link.tail();
    return tail != null && tokens > 0 && link.resumedTokens(layer) == tail.end(layer) + tokens;
  }

  /**
   * A resumed session has no trees: they are sent again, unless it turns out that the worker had
   * heard already what was accepted.
   */
  private void sendTrees() {
    ReplayTail tail = link.tail();
    if (tail == null || !link.treesDue()) {
      return;
    }
    for (DecodeStep tree : link.trees().values()) {
      if (link.resumedTokens(tree.getLayer()) <= tail.end(tree.getLayer())) {
        var _ = exchange(DecodeRequest.newBuilder().setStep(tree).build());
      }
    }
    link.treesSent();
  }

  private void served(DecodeStep step, DecodeResponse answer) {
    int layer = step.getLayer();
    if (step.hasAccepted()) {
      take(layer, step.getAccepted());
    }
    ReplayTail tail = link.tail();
    if (tail == null) {
      return;
    }
    if (isTree(step)) {
      link.trees().put(layer, step.toBuilder().clearAccepted().build());
    } else {
      int tokens = step.getKeys().getShape(0);
      tail.append(layer, step.getPosition(), step.getKeys(), step.getValues(), tokens);
    }
    tail.durable(layer, answer.getDurableTokens());
  }

  /** Accepted tokens of a layer's tree are appended, and the tree is gone. */
  private void take(int layer, AcceptedPath accepted) {
    DecodeStep tree = link.trees().remove(layer);
    ReplayTail tail = link.tail();
    if (tree != null && tail != null) {
      tail.append(layer, tree.getKeys(), tree.getValues(), accepted.getNodesList());
    }
  }

  private void repair(DecodeResponse answer, int rounds) {
    Recompute recompute = link.recompute();
    if (recompute == null || rounds > REPAIRS_MAX) {
      TokenRange first = answer.getMissing(0);
      throw new KvtierException(
          Code.LOST,
          ("no tier has the pages of %d ranges any more, the first of layer %d, %d tokens from %d"
                  + " on; send them again as repairs (KvSession.recomputeWith), then the step")
              .formatted(
                  answer.getMissingCount(),
                  first.getLayer(),
                  first.getTokens(),
                  first.getPosition()));
    }
    try (RepairStream repairs = new RepairStream(link)) {
      recompute.rows(answer.getMissingList(), repairs);
    }
  }

  @Override
  public void close() {
    Duplex<DecodeRequest, DecodeResponse> opened = stream;
    if (opened != null) {
      opened.close();
    }
  }
}
