package io.kvtier.deploy.simulate;

import io.kvtier.page.PageKey;
import io.kvtier.page.PrefixChain;
import io.kvtier.v1.Session;
import java.util.Set;

/** A session as its engine knows it. */
final class SimulatedSession {
  final Workload.Prompt prompt;
  final PrefixChain chain;

  /** Session as the coordinator last told it. */
  Session info;

  /** Tokens that the engine has. */
  int tokens;

  int turnsLeft;

  /** Pages that must not be lost. */
  Set<PageKey> relied = Set.of();

  SimulatedSession(Workload.Prompt prompt, PrefixChain chain, Session info, int turns) {
    this.prompt = prompt;
    this.chain = chain;
    this.info = info;
    this.turnsLeft = turns;
  }

  String id() {
    return info.getSessionId();
  }
}
