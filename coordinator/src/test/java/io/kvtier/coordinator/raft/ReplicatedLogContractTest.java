package io.kvtier.coordinator.raft;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.coordinator.ReplicationConfig;
import io.kvtier.coordinator.log.LocalLog;
import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.coordinator.state.ClusterState;
import io.kvtier.coordinator.state.RandomCommands;
import io.kvtier.v1.Command;
import io.kvtier.v1.SnapshotPart;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Both logs apply what is written, in its order, and tell what came of it. */
final class ReplicatedLogContractTest {
  enum Kind {
    LOCAL,
    RAFT
  }

  @TempDir Path data;

  private ReplicatedLog open(Kind kind) throws InterruptedException {
    return kind == Kind.LOCAL ? new LocalLog(7) : opened(data, 50);
  }

  static RaftLog opened(Path data, long snapshotCommands) throws InterruptedException {
    RaftLog log = RaftLog.open(ReplicationConfig.alone(data), snapshotCommands);
    awaitLead(List.of(log));
    return log;
  }

  /** Waits until one of some logs leads. */
  static RaftLog awaitLead(List<RaftLog> logs) throws InterruptedException {
    long startNs = System.nanoTime();
    while (true) {
      for (RaftLog log : logs) {
        if (log.leadership().leads()) {
          return log;
        }
      }
      assertThat(System.nanoTime() - startNs).isLessThan(Duration.ofSeconds(60).toNanos());
      TimeUnit.MILLISECONDS.sleep(10);
    }
  }

  static List<SnapshotPart> snapshot(ReplicatedLog log) {
    return log.read(state -> {
      List<SnapshotPart> parts = new ArrayList<>();
      state.snapshot(parts::add);
      return parts;
    });
  }

  @ParameterizedTest
  @EnumSource
  void whatIsWrittenIsAppliedInOrder(Kind kind) throws Exception {
    long seed = System.nanoTime();
    System.out.println("ReplicatedLogContractTest seed " + seed);
    RandomCommands commands = new RandomCommands(seed);
    ClusterState model = new ClusterState();
    try (ReplicatedLog log = open(kind)) {
      AtomicInteger heard = new AtomicInteger();
      log.onApplied(heard::incrementAndGet);
      for (int i = 0; i < 200; i++) {
        Command command = commands.next();
        assertThat(log.submit(command)).isEqualTo(model.apply(command));
      }
      assertThat(heard).hasValue(200);
      List<SnapshotPart> expected = new ArrayList<>();
      model.snapshot(expected::add);
      assertThat(snapshot(log)).isEqualTo(expected);
      assertThat(log.leadership().leads()).isTrue();
    }
  }
}
