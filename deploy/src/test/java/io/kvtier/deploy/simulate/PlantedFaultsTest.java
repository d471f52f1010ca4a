package io.kvtier.deploy.simulate;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.coordinator.lead.PrefixSource;
import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.coordinator.prefix.StoredPrefix;
import io.kvtier.page.Codec;
import io.kvtier.page.PageKey;
import io.kvtier.page.PrefixChain;
import io.kvtier.replica.Rendezvous;
import io.kvtier.replica.ReplicaConfig;
import io.kvtier.v1.Applied;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.Command;
import io.kvtier.v1.EndSession;
import io.kvtier.v1.MoveSession;
import io.kvtier.v1.SessionRecord;
import java.time.Duration;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.BiFunction;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Each rule is shown to see a fault that is planted in what a run drives. */
class PlantedFaultsTest {
  private static final Map<Rule, Parts> FAULTS = new EnumMap<>(Rule.class);

  static {
    plantInPlacement();
    plantInTheLog();
    plantInWorkers();
    plantInTiers();
  }

  private static Parts sound() {
    return Parts.product();
  }

  private static void plantInPlacement() {
    // Pages go by their number, modulo the tiers.
    FAULTS.put(
        Rule.SHARE_MOVED,
        sound()
            .withRanking(members ->
                (key, max) ->
                    consecutive(Math.floorMod(key.w3(), members.nodes().size()), members, max)));
    // The first tier is home to everything.
    FAULTS.put(
        Rule.EVEN_PAGES,
        sound().withRanking(members -> (key, max) -> consecutive(0, members, max)));
    // One copy where there should be two.
    UnaryOperator<ReplicaConfig> one = _ -> ReplicaConfig.of(1, 1, Duration.ofSeconds(5));
    FAULTS.put(Rule.ENOUGH_COPIES, sound().withReplicas(one));
    FAULTS.put(Rule.ACKNOWLEDGED_KEPT, sound().withReplicas(one));
  }

  private static int[] consecutive(int first, Rendezvous members, int max) {
    int nodes = members.nodes().size();
    int[] ranking = new int[Math.min(max, nodes)];
    for (int i = 0; i < ranking.length; i++) {
      ranking[i] = (first + i) % nodes;
    }
    return ranking;
  }

  private static void log(Rule rule, BiFunction<ReplicatedLog, Command, Applied> fault) {
    FAULTS.put(rule, sound().withLog(log -> new FaultyLog(log, fault)));
  }

  private static void plantInTheLog() {
    log(
        Rule.DEAD_NODES_GONE,
        (log, command) ->
            command.hasRemoveNodes() ? Applied.getDefaultInstance() : log.submit(command));
    log(
        Rule.NOTHING_LEFT,
        (log, command) -> command.hasEnd() ? keptOpen(log, command.getEnd()) : log.submit(command));
    log(
        Rule.EPOCH_RISES,
        (log, command) ->
            command.hasMove() ? movedInItsEpoch(log, command.getMove()) : log.submit(command));
    log(
        Rule.SESSION_KEPT,
        (log, command) -> {
          Applied applied = log.submit(command);
          if (command.hasSetPlan()) {
            var _ = end(log, applied.getSession());
          }
          return applied;
        });
  }

  private static Applied keptOpen(ReplicatedLog log, EndSession end) {
    return log.read(state ->
        Applied.newBuilder()
            .setSession(state.sessions().get(end.getSessionId(), end.getEpoch()))
            .build());
  }

  private static Applied end(ReplicatedLog log, SessionRecord record) {
    return log.submit(
        Command.newBuilder()
            .setEnd(
                EndSession.newBuilder()
                    .setSessionId(record.getSession().getSessionId())
                    .setEpoch(record.getSession().getEpoch()))
            .build());
  }

  private static Applied movedInItsEpoch(ReplicatedLog log, MoveSession move) {
    SessionRecord.Builder moved =
        log.read(state -> state.sessions().get(move.getSessionId())).toBuilder();
    var _ = end(log, moved.build());
    moved.getSessionBuilder().setWorkerTarget(move.getWorkerTarget());
    return log.submit(Command.newBuilder().setOpen(moved).build());
  }

  private static void plantInWorkers() {
    FAULTS.put(
        Rule.EVEN_LOAD,
        sound()
            .withWorkers(workers ->
                new FaultyWorkers(
                    workers,
                    (real, request) -> {
                      if (!request.getSession().getWorkerTarget().equals("worker3:1")) {
                        throw new KvtierException(Code.UNAVAILABLE, "it does not answer");
                      }
                      return real.attach(request);
                    })));
    FAULTS.put(
        Rule.ONE_WORKER,
        sound()
            .withWorkers(workers ->
                new FaultyWorkers(
                    workers,
                    (real, request) -> {
                      AttachRequest.Builder second = request.toBuilder();
                      second.getSessionBuilder().setWorkerTarget("worker3:1");
                      if (!request.getSession().getWorkerTarget().equals("worker3:1")) {
                        var _ = real.attach(second.build());
                      }
                      return real.attach(request);
                    })));
    FAULTS.put(Rule.TRUE_PREFIX, sound().withPrefixes(_ -> new MadeUpPrefixes()));
  }

  private static final class MadeUpPrefixes implements PrefixSource {
    @Override
    public StoredPrefix find(PrefixChain chain, int layers, Codec codec) {
      return new StoredPrefix(chain.pages(), new int[chain.pages() * layers], new int[layers]);
    }

    @Override
    public boolean whole() {
      return true;
    }
  }

  private static void plantInTiers() {
    FAULTS.put(
        Rule.LEASED_KEPT,
        sound()
            .withTiers((bytes, instance, clock) ->
                new ForwardingTier(new CachedTier(bytes, instance, clock)) {
                  @Override
                  public PageCache.Lease lease(
                      String owner, long epoch, long id, long ttlNs, List<PageKey> keys) {
                    return super.lease(owner, epoch, id, ttlNs, List.of());
                  }
                }));
    FAULTS.put(
        Rule.LEASES_END,
        sound()
            .withTiers((bytes, instance, clock) ->
                new ForwardingTier(new CachedTier(bytes, instance, clock)) {
                  @Override
                  public PageCache.Lease lease(
                      String owner, long epoch, long id, long ttlNs, List<PageKey> keys) {
                    return super.lease(owner, epoch, id, 50 * ttlNs, keys);
                  }
                }));
    FAULTS.put(
        Rule.FENCED,
        sound()
            .withTiers((bytes, instance, clock) ->
                new ForwardingTier(new CachedTier(bytes, instance, clock)) {
                  @Override
                  public PageCache.Lease lease(
                      String owner, long epoch, long id, long ttlNs, List<PageKey> keys) {
                    return super.lease(owner, 1 << 20, id, ttlNs, keys);
                  }

                  @Override
                  public void release(
                      String owner, long epoch, java.util.Collection<PageKey> keys) {
                    super.release(owner, 1 << 20, keys);
                  }
                }));
    FAULTS.put(
        Rule.TRUE_PRESENCE,
        sound()
            .withTiers((bytes, instance, clock) ->
                new ForwardingTier(new CachedTier(bytes, instance, clock)) {
                  @Override
                  public PutResult put(PageKey key, int length) {
                    return key.w1() % 16 == 0 ? PutResult.STORED : super.put(key, length);
                  }
                }));
    FAULTS.put(
        Rule.WITHIN_BOUND,
        sound()
            .withTiers((bytes, instance, clock) ->
                new ForwardingTier(new CachedTier(2 * bytes, instance, clock)) {
                  @Override
                  public long bytesMax() {
                    return bytes;
                  }
                }));
  }

  /** Small tiers evict; many workers are lost in little time. */
  static SimulationConfig config(long seed) {
    return new SimulationConfig(
        seed, 12, 5, 120, Duration.ofMinutes(7), 8, 0, 2, 2, 1, 24 << 20, 64 << 20, 20, 1 << 16);
  }

  @ParameterizedTest
  @EnumSource
  void aPlantedFaultIsSeen(Rule rule) {
    SimulationReport report =
        new Simulation(config(11), FAULTS.getOrDefault(rule, sound())).run((_, _, _) -> {});
    assertThat(report.held(rule)).as("seed 11: %s", report.breaches()).isFalse();
  }

  @Test
  void everyRuleHasAFaultAndHoldsWithoutOne() {
    assertThat(FAULTS.keySet()).isEqualTo(Set.of(Rule.values()));
    SimulationReport report = new Simulation(config(11), sound()).run((_, _, _) -> {});
    assertThat(report.breaches()).as("seed 11").isEmpty();
  }
}
