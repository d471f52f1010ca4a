package io.kvtier.coordinator.raft;

import static io.kvtier.coordinator.raft.ReplicatedLogContractTest.awaitLead;
import static io.kvtier.coordinator.raft.ReplicatedLogContractTest.opened;
import static io.kvtier.coordinator.raft.ReplicatedLogContractTest.snapshot;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.FreePorts;
import io.kvtier.coordinator.ReplicationConfig;
import io.kvtier.coordinator.ReplicationConfig.Peer;
import io.kvtier.coordinator.log.Leadership;
import io.kvtier.coordinator.state.RandomCommands;
import io.kvtier.v1.Command;
import io.kvtier.v1.SnapshotPart;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.apache.ratis.util.CodeInjectionForTesting;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What the log keeps over restarts and the loss of coordinators. */
final class RaftLogTest {
  @TempDir Path data;

  @Test
  void aRestartFindsEverythingThroughSnapshots() throws Exception {
    long seed = System.nanoTime();
    System.out.println("RaftLogTest seed " + seed);
    RandomCommands commands = new RandomCommands(seed);
    List<SnapshotPart> before = List.of();
    for (int run = 0; run < 3; run++) {
      try (RaftLog log = opened(data, 40)) {
        assertThat(run == 0 ? before : snapshot(log)).isEqualTo(before);
        for (int i = 0; i < 100; i++) {
          var _ = log.submit(commands.next());
        }
        before = snapshot(log);
      }
    }
    try (Stream<Path> files = Files.walk(data)) {
      assertThat(files.filter(file -> file.getFileName().toString().startsWith("snapshot.")))
          .isNotEmpty();
    }
  }

  @Test
  void anotherClustersDirectoryIsRefused() throws Exception {
    opened(data, 40).close();
    ReplicationConfig other =
        new ReplicationConfig("x", List.of(new Peer("x", "127.0.0.1", 0, 0)), data);
    assertThatThrownBy(() -> RaftLog.open(other))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.PRECONDITION))
        .hasMessageContaining(data.toString());
  }

  /** Ratis by itself would end the process. */
  @Test
  void aTakenPortIsToldOf() throws Exception {
    List<Peer> peers = peers();
    int port = peers.getFirst().raftPort();
    try (ServerSocket taken = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
      assertThatThrownBy(() -> open(peers.getFirst(), peers).close())
          .isInstanceOfSatisfying(
              KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.UNAVAILABLE))
          .hasMessageContaining("raft port " + taken.getLocalPort());
    }
  }

  @Test
  void threeAgreeGoOnWithTwoAndBringTheThirdUpToDate() throws Exception {
    long seed = System.nanoTime();
    System.out.println("RaftLogTest seed " + seed);
    RandomCommands commands = new RandomCommands(seed);
    List<Peer> peers = peers();
    List<RaftLog> logs = new ArrayList<>();
    for (Peer peer : peers) {
      logs.add(open(peer, peers));
    }
    try {
      RaftLog leader = awaitLead(logs);
      for (int i = 0; i < 100; i++) {
        var _ = leader.submit(commands.next());
      }
      int gone = logs.indexOf(leader);
      RaftLog follower = logs.get((gone + 1) % 3);
      assertThat(follower.leadership().leader())
          .hasValueSatisfying(target -> assertThat(target).isEqualTo(peers.get(gone).target()));
      Command refused = commands.next();
      assertThatThrownBy(() -> follower.submit(refused))
          .isInstanceOfSatisfying(
              KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.UNAVAILABLE));

      long termBefore = leader.leadership().term();
      List<SnapshotPart> before = snapshot(leader);
      leader.close();
      logs.remove(gone);
      RaftLog next = awaitLead(logs);
      assertThat(snapshot(next)).isEqualTo(before);
      assertThat(next.leadership().term()).isGreaterThan(termBefore);
      for (int i = 0; i < 100; i++) {
        var _ = next.submit(commands.next());
      }
      RaftLog back = open(peers.get(gone), peers);
      logs.add(back);
      awaitEqual(next, back);
      assertThat(back.instance()).isEqualTo(next.instance());
    } finally {
      logs.forEach(RaftLog::close);
    }
  }

  /** Whoever is cut off from the others may not know yet that another one leads. */
  @Test
  void withoutAMajorityNoReadIsConfirmed() throws Exception {
    List<Peer> peers = peers();
    List<RaftLog> logs = new ArrayList<>();
    for (Peer peer : peers) {
      logs.add(open(peer, peers));
    }
    try {
      RaftLog leader = awaitLead(logs);
      leader.confirm();
      for (RaftLog log : List.copyOf(logs)) {
        if (log != leader) {
          logs.remove(log);
          log.close();
        }
      }
      List<SnapshotPart> before = snapshot(leader);
      assertThatThrownBy(
              () -> {
                // For as long as the followers have promised to elect nobody.
                for (int i = 0; i < 100; i++) {
                  leader.confirm();
                  TimeUnit.MILLISECONDS.sleep(50);
                }
              })
          .isInstanceOfSatisfying(
              KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.UNAVAILABLE));
      assertThat(snapshot(leader)).isEqualTo(before);
    } finally {
      logs.forEach(RaftLog::close);
    }
  }

  /**
   * Two whose disks hang answer as followers all the same, so that a leader stays in office, which
   * it would for ever.
   */
  @Test
  void aLeaderThatGetsNowhereStepsDown() throws Exception {
    CountDownLatch hanging = new CountDownLatch(1);
    String runWorker = "SegmentedRaftLogWorker.runWorker";
    CodeInjectionForTesting.put(
        runWorker,
        (id, remote, arguments) -> {
          if (!String.valueOf(id).equals("c0")) {
            awaitUninterruptibly(hanging);
          }
          return true;
        });
    List<Peer> peers = peers();
    List<RaftLog> logs = new ArrayList<>();
    try {
      for (Peer peer : peers) {
        logs.add(open(peer, peers));
      }
      long first = awaitTerm(logs, 1);
      long later = awaitTerm(logs, first + 1);
      assertThat(logs).noneMatch(log -> log.leadership().leads());
      hanging.countDown();
      RaftLog leader = awaitLead(logs);
      assertThat(leader.leadership().term()).isGreaterThanOrEqualTo(later);
      var _ = leader.submit(new RandomCommands(1).next());
    } finally {
      hanging.countDown();
      CodeInjectionForTesting.remove(runWorker);
      logs.forEach(RaftLog::close);
    }
  }

  private static void awaitUninterruptibly(CountDownLatch latch) {
    boolean interrupted = false;
    while (latch.getCount() > 0) {
      try {
        latch.await();
      } catch (InterruptedException e) {
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  /** Waits until a leader is known in a term that is not below that one. */
  private static long awaitTerm(List<RaftLog> logs, long least) throws InterruptedException {
    long startNs = System.nanoTime();
    while (true) {
      for (RaftLog log : logs) {
        Leadership known = log.leadership();
        if (known.leader().isPresent() && known.term() >= least) {
          return known.term();
        }
      }
      assertThat(System.nanoTime() - startNs)
          .as("time in which none of term %d led", least)
          .isLessThan(Duration.ofSeconds(30).toNanos());
      TimeUnit.MILLISECONDS.sleep(10);
    }
  }

  private RaftLog open(Peer peer, List<Peer> peers) {
    return RaftLog.open(new ReplicationConfig(peer.id(), peers, data.resolve(peer.id())), 30);
  }

  private static void awaitEqual(RaftLog one, RaftLog other) throws InterruptedException {
    long startNs = System.nanoTime();
    while (!snapshot(other).equals(snapshot(one))) {
      assertThat(System.nanoTime() - startNs).isLessThan(Duration.ofSeconds(60).toNanos());
      TimeUnit.MILLISECONDS.sleep(20);
    }
  }

  private static List<Peer> peers() throws IOException {
    List<Peer> peers = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      peers.add(new Peer("c" + i, "127.0.0.1", FreePorts.next(), FreePorts.next()));
    }
    return peers;
  }
}
