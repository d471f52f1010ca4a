package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.replica.NodeHealth;
import io.kvtier.replica.Rendezvous;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import java.util.function.Consumer;
import java.util.function.Function;

/** The nodes that replicas lie on, each with its health and a bound on the calls under way. */
final class ReplicaNodes {
  private record State(NodeHealth health, Semaphore calls) {}

  private final Function<String, PageTransport> transportOf;
  private final int callsMax;
  private final Map<String, State> states = new ConcurrentHashMap<>();

  ReplicaNodes(Function<String, PageTransport> transportOf, int callsMax) {
    this.transportOf = transportOf;
    this.callsMax = callsMax;
  }

  private State state(String node) {
    return states.computeIfAbsent(node, id -> new State(new NodeHealth(), new Semaphore(callsMax)));
  }

  /** The health of some nodes, in their order. */
  NodeHealth[] health(List<String> ids) {
    return ids.stream().map(node -> state(node).health()).toArray(NodeHealth[]::new);
  }

  /** Forgets nodes that are no longer there. */
  void retain(Rendezvous members) {
    states.keySet().retainAll(members.everyone());
  }

  /**
   * Calls a node on this thread.
   *
   * @throws KvtierException whatever went wrong
   */
  void call(String node, Consumer<PageTransport> method) {
    Semaphore calls = state(node).calls();
    if (!calls.tryAcquire()) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "%d calls to tier node %s are under way, its most".formatted(callsMax, node));
    }
    try {
      method.accept(transportOf.apply(node));
    } catch (KvtierException | ReadRun.Ended e) {
      throw e;
    } catch (RuntimeException e) {
      throw new KvtierException(
          Code.INTERNAL, "a call to tier node %s failed: %s".formatted(node, e), e);
    } finally {
      calls.release();
    }
  }
}
