package io.kvtier.deploy.simulate;

import com.google.errorprone.annotations.FormatMethod;
import com.google.errorprone.annotations.FormatString;
import io.kvtier.replica.ReplicaCounts.Count;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;

/** What came of a run: rows for a table, and the rules that did not hold. */
public final class SimulationReport {
  private static final double GB = 1e9;

  /**
   * A figure.
   *
   * @param what in words
   * @param value as text, with its unit
   */
  public record Row(String what, String value) {}

  /**
   * A rule.
   *
   * @param rule in words
   * @param broken how often it did not hold
   */
  public record Held(String rule, long broken) {}

  private final List<Row> rows = new ArrayList<>();
  private final List<Held> rules = new ArrayList<>();
  private final List<String> told;
  private final Set<Rule> broken;
  private final long[] sessions;
  private final long[] bytes;

  SimulationReport(SimulationConfig config, Cluster cluster, Balance sessions, Balance bytes) {
    this.sessions = sessions.fullest();
    this.bytes = bytes.fullest();
    Figures f = cluster.figures;
    run(config, cluster, f);
    balance(sessions, bytes);
    reuse(cluster, f);
    changes(cluster, f);
    plans(cluster, f);
    for (Rule rule : Rule.values()) {
      rules.add(new Held(rule.text, cluster.audit.broken().getOrDefault(rule, 0L)));
    }
    broken = Set.copyOf(cluster.audit.broken().keySet());
    told = List.copyOf(cluster.audit.told());
  }

  private void run(SimulationConfig config, Cluster cluster, Figures f) {
    long seconds = cluster.time.nowNs() / 1_000_000_000L;
    row("seed", "%d", config.seed());
    row("workers; tiers", "%,d; %,d", config.workers(), config.tiers());
    row(
        "virtual time; events; commands",
        "%,d s; %,d; %,d",
        seconds,
        cluster.time.count(),
        cluster.front.log.commands());
    row("sessions opened; refused; lost", "%,d; %,d; %,d", f.opened, f.refused, f.sessionsLost);
    row("sessions open at once, most", "%,d", f.openMost);
  }

  private void balance(Balance ofSessions, Balance ofBytes) {
    row(
        "sessions a worker: max/mean (worst look); variation",
        "%.2f (%.2f); %.3f",
        ofSessions.skew(),
        ofSessions.skewMost(),
        ofSessions.variation());
    row(
        "bytes a tier: max/mean (worst look); variation",
        "%.3f (%.3f); %.3f",
        ofBytes.skew(),
        ofBytes.skewMost(),
        ofBytes.variation());
  }

  private void reuse(Cluster cluster, Figures f) {
    row(
        "prompt tokens found stored",
        "%.3f of %,d",
        share(f.reusedTokens, f.promptTokens),
        f.promptTokens);
    row("page reads served", "%.5f of %,d", share(f.readsServed, f.readsAsked), f.readsAsked);
    row("tokens generated", "%,d", f.generatedTokens);
    row("copies put; bytes", "%,d; %.1f GB", f.pagesPut, f.bytesPut / GB);
    row("copies evicted", "%,d", cluster.audit.evicted);
    row("puts that no tier had room for", "%,d", f.putsRefused);
    row(
        "prefix directory: keys; ignored beyond its bound",
        "%,d; %,d",
        cluster.front.prefixes.keys(),
        cluster.front.prefixes.ignored());
  }

  private void changes(Cluster cluster, Figures f) {
    row(
        "workers lost; out of sight; drained",
        "%,d; %,d; %,d",
        f.workersLost,
        f.workersCut,
        f.workersDrained);
    row("tiers lost; drained; joined", "%,d; %,d; %,d", f.tiersLost, f.tiersDrained, f.tiersJoined);
    row("sessions resumed; moved", "%,d; %,d", f.sessionsResumed, f.sessionsMoved);
    row(
        "bytes read back; tokens sent again",
        "%.2f GB; %,d",
        f.bytesReadBack / GB,
        f.replayedTokens);
    row(
        "bytes moved by changes of tiers (their share)",
        "%.2f GB (%.2f GB)",
        f.bytesRepaired / GB,
        f.bytesRepairedLeast / GB);
    row(
        "pages with other homes after a change, most (share)",
        "%.4f (%.4f)",
        f.homesMovedMost,
        f.homesMovedExpected);
    row(
        "repairs done; dropped",
        "%,d; %,d",
        cluster.traffic.counts.get(Count.REPAIRS_DONE),
        cluster.traffic.counts.get(Count.REPAIRS_DROPPED));
    row("pages lost and sent again", "%,d", f.pagesLost);
    row("answers lost; sessions freed as idle", "%,d; %,d", f.answersLost, f.freedIdle);
    row("stale calls refused", "%,d", f.staleRefused);
    row("pages of ended sessions that only eviction removes", "%,d", f.leftToEvict);
  }

  private void plans(Cluster cluster, Figures f) {
    row(
        "plans; heads dense; sparse; streamed",
        "%,d; %.3f; %.3f; %.3f",
        f.plans,
        share(f.headsDense, f.heads),
        share(f.headsSparse, f.heads),
        share(f.headsStreamed, f.heads));
    row(
        "device bytes of a plan, mean (bound of a worker)",
        "%.2f MB (%.0f MB)",
        share(f.planBytes, f.plans) / 1e6,
        cluster.config.deviceBytes() / 1e6);
  }

  private static double share(long part, long whole) {
    return whole == 0 ? 0 : (double) part / whole;
  }

  @FormatMethod
  private void row(String what, @FormatString String form, Object... values) {
    rows.add(new Row(what, String.format(Locale.ROOT, form, values)));
  }

  /** The figures, in order. */
  public List<Row> rows() {
    return rows;
  }

  /** All rules, in order. */
  public List<Held> rules() {
    return rules;
  }

  /** The first breaches in words; empty: none. */
  public List<String> breaches() {
    return told;
  }

  /** Sessions of each worker when most were open, rising. */
  public long[] sessionsOfWorkers() {
    return sessions.clone();
  }

  /** Bytes of each tier when they held most, rising. */
  public long[] bytesOfTiers() {
    return bytes.clone();
  }

  /** Whether a rule held throughout. */
  boolean held(Rule rule) {
    return !broken.contains(rule);
  }
}
