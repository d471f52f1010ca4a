package io.kvtier.coordinator.raft;

import com.google.protobuf.InvalidProtocolBufferException;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.ReplicationConfig;
import io.kvtier.coordinator.ReplicationConfig.Peer;
import io.kvtier.coordinator.log.GuardedState;
import io.kvtier.coordinator.log.Leadership;
import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.coordinator.state.ClusterState;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.ratis.protocol.ClientId;
import org.apache.ratis.protocol.Message;
import org.apache.ratis.protocol.RaftClientReply;
import org.apache.ratis.protocol.RaftClientRequest;
import org.apache.ratis.protocol.RaftGroup;
import org.apache.ratis.protocol.RaftGroupId;
import org.apache.ratis.protocol.RaftPeer;
import org.apache.ratis.protocol.RaftPeerId;
import org.apache.ratis.protocol.TransferLeadershipRequest;
import org.apache.ratis.server.DivisionInfo;
import org.apache.ratis.server.RaftServer;
import org.apache.ratis.server.storage.RaftStorage.StartupOption;
import org.apache.ratis.thirdparty.com.google.protobuf.ByteString;

/**
 * The log of several coordinators, of which a majority must live, or of one that keeps its state on
 * disk. Thread-safe.
 */
public final class RaftLog implements ReplicatedLog {
  /** Longer than an election; a caller asks again then. */
  private static final long SUBMIT_TIMEOUT_MS = Duration.ofSeconds(4).toMillis();

  private static final Logger LOG = Logger.getLogger(RaftLog.class.getName());

  private static final long WATCH_MS = 500;

  /** Tells of every vote and append; held here, since loggers are collected otherwise. */
  private static final Logger RATIS = Logger.getLogger("org.apache.ratis");

  static {
    if (RATIS.getLevel() == null) {
      RATIS.setLevel(Level.SEVERE);
    }
  }

  private final ReplicationConfig config;
  private final RaftGroupId groupId;
  private final RaftServer server;
  private final GuardedState state;
  private final ClientId client = ClientId.randomId();
  private final AtomicLong calls = new AtomicLong();
  private final LeaderProgress progress = new LeaderProgress();
  private final ScheduledExecutorService watch =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("coordinator-log-watch").factory());

  private RaftLog(
      ReplicationConfig config, RaftGroupId groupId, RaftServer server, GuardedState state) {
    this.config = config;
    this.groupId = groupId;
    this.server = server;
    this.state = state;
    var _ =
        watch.scheduleWithFixedDelay(
            this::stepDownIfStuck, WATCH_MS, WATCH_MS, TimeUnit.MILLISECONDS);
  }

  /**
   * Opens the log and takes part in its cluster.
   *
   * @throws KvtierException PRECONDITION if the directory is another cluster's, UNAVAILABLE if it
   *     or the port cannot be used
   */
  public static RaftLog open(ReplicationConfig config) {
    return open(config, RaftSettings.SNAPSHOT_COMMANDS);
  }

  static RaftLog open(ReplicationConfig config, long snapshotCommands) {
    RaftGroupId groupId = groupId(config);
    GuardedState state = new GuardedState();
    try {
      Path data = config.data().toAbsolutePath();
      Files.createDirectories(data);
      boolean known = requireOwn(data, groupId);
      List<RaftPeer> peers = config.peers().stream().map(peer -> raftPeer(peer, config)).toList();
      RaftPeer own =
          peers.stream()
              .filter(peer -> peer.getId().toString().equals(config.self()))
              .findFirst()
              .orElseThrow();
      requireFree(config.own().host(), portOf(own));
      RaftServer server =
          RaftServer.newBuilder()
              .setServerId(own.getId())
              .setGroup(RaftGroup.valueOf(groupId, peers))
              .setProperties(
                  RaftSettings.of(own.getAddress(), data, peers.size(), snapshotCommands))
              .setStateMachine(new RaftStateMachine(state))
              .setOption(known ? StartupOption.RECOVER : StartupOption.FORMAT)
              .build();
      server.start();
      return new RaftLog(config, groupId, server, state);
    } catch (IOException | UncheckedIOException e) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "the coordinator's log in %s cannot be opened, or its raft port %d not be used: %s"
              .formatted(config.data(), config.own().raftPort(), e.getMessage()),
          e);
    }
  }

  /** Ratis ends the whole process where it cannot listen. */
  private static void requireFree(String host, int port) throws IOException {
    new ServerSocket(port, 1, InetAddress.getByName(host)).close();
  }

  /** Coordinators are of one cluster if all their peers have the same ids. */
  private static RaftGroupId groupId(ReplicationConfig config) {
    String ids = config.peers().stream().map(Peer::id).sorted().collect(Collectors.joining(","));
    return RaftGroupId.valueOf(
        UUID.nameUUIDFromBytes(("kvtier:" + ids).getBytes(StandardCharsets.UTF_8)));
  }

  /** Whether the directory has this cluster's log already. */
  private static boolean requireOwn(Path data, RaftGroupId groupId) throws IOException {
    List<String> groups;
    try (Stream<Path> inside = Files.list(data)) {
      groups =
          inside
              .filter(Files::isDirectory)
              .map(path -> path.getFileName().toString())
              .filter(name -> name.matches("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"))
              .toList();
    }
    boolean known = groups.contains(groupId.getUuid().toString());
    if (!known && !groups.isEmpty()) {
      throw KvtierException.precondition(
          "%s has the log of a cluster of other coordinators; give their ids, or another directory",
          data);
    }
    return known;
  }

  private static RaftPeer raftPeer(Peer peer, ReplicationConfig config) {
    int port = config.peers().size() > 1 ? peer.raftPort() : freePort(peer.host());
    return RaftPeer.newBuilder().setId(peer.id()).setAddress(peer.host() + ":" + port).build();
  }

  private static int portOf(RaftPeer peer) {
    return Integer.parseInt(peer.getAddress().substring(peer.getAddress().lastIndexOf(':') + 1));
  }

  /** Nobody calls the only peer, but Ratis listens all the same. */
  private static int freePort(String host) {
    try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getByName(host))) {
      return socket.getLocalPort();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public Applied submit(Command command) {
    byte[] bytes = command.toByteArray();
    if (bytes.length > RaftSettings.COMMAND_BYTES_MAX) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "the coordinators would have to agree on %d bytes and their log takes at most %d at once"
              .formatted(bytes.length, RaftSettings.COMMAND_BYTES_MAX));
    }
    try {
      RaftClientReply reply = ask(RaftClientRequest.writeRequestType(), ByteString.copyFrom(bytes));
      return Applied.parseFrom(reply.getMessage().getContent().asReadOnlyByteBuffer());
    } catch (InvalidProtocolBufferException e) {
      throw new KvtierException(Code.INTERNAL, "an answer that cannot be read", e);
    }
  }

  @Override
  public void confirm() {
    var _ = ask(RaftClientRequest.readRequestType(), ByteString.EMPTY);
  }

  /** Asks the log for something, which it does only as the leader. */
  private RaftClientReply ask(RaftClientRequest.Type type, ByteString content) {
    RaftClientRequest request =
        RaftClientRequest.newBuilder()
            .setClientId(client)
            .setServerId(server.getId())
            .setGroupId(groupId)
            .setCallId(calls.incrementAndGet())
            .setMessage(Message.valueOf(content))
            .setType(type)
            .build();
    try {
      return await(server.submitClientRequestAsync(request));
    } catch (IOException e) {
      throw unavailable(e);
    }
  }

  private static RaftClientReply await(CompletableFuture<RaftClientReply> answer) {
    try {
      RaftClientReply reply = answer.get(SUBMIT_TIMEOUT_MS, TimeUnit.MILLISECONDS);
      if (!reply.isSuccess()) {
        throw unavailable(reply.getException());
      }
      return reply;
    } catch (ExecutionException | TimeoutException e) {
      throw unavailable(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw unavailable(e);
    }
  }

  private static KvtierException unavailable(Throwable cause) {
    return new KvtierException(
        Code.UNAVAILABLE,
        "the coordinators could not agree in time; it may be done or not, ask again (%s)"
            .formatted(cause),
        cause);
  }

  @Override
  public Leadership leadership() {
    try {
      DivisionInfo info = server.getDivision(groupId).getInfo();
      if (!info.getLifeCycleState().isRunning()) {
        return new Leadership(false, Optional.empty(), 0);
      }
      RaftPeerId leader = info.getLeaderId();
      Optional<String> target =
          leader == null
              ? Optional.empty()
              : config.peers().stream()
                  .filter(peer -> peer.id().equals(leader.toString()))
                  .map(Peer::target)
                  .findFirst();
      return new Leadership(info.isLeader() && info.isLeaderReady(), target, info.getCurrentTerm());
    } catch (IOException e) {
      // It is closing.
      return new Leadership(false, Optional.empty(), 0);
    }
  }

  /**
   * A leader that does not get anywhere makes room: its followers hear it and would wait for ever.
   * The one elected next, even if it is the same, opens its ways to the others anew.
   */
  private void stepDownIfStuck() {
    try {
      RaftServer.Division division = server.getDivision(groupId);
      DivisionInfo info = division.getInfo();
      long committed = division.getRaftLog().getLastCommittedIndex();
      long last = division.getRaftLog().getNextIndex() - 1;
      LeaderProgress.Standing standing =
          new LeaderProgress.Standing(
              info.isLeader(), info.isLeaderReady(), info.getCurrentTerm(), committed, last);
      if (progress.stuck(standing, System.nanoTime())) {
        String others =
            "the others' are at %s, of %s"
                .formatted(
                    Arrays.toString(info.getFollowerMatchIndices()),
                    Arrays.toString(info.getFollowerNextIndices()));
        LOG.log(
            Level.WARNING,
            "this coordinator leads but could agree on nothing for a while and steps down: {0}; its"
                + " disk is at {1}, {2}",
            new Object[] {standing, Long.toString(division.getRaftLog().getFlushIndex()), others});
        stepDown();
      }
    } catch (IOException | RuntimeException e) {
      LOG.log(Level.WARNING, "whether the coordinators agree cannot be told", e);
    }
  }

  private void stepDown() throws IOException {
    var _ =
        await(
            server.transferLeadershipAsync(
                new TransferLeadershipRequest(
                    client,
                    server.getId(),
                    groupId,
                    calls.incrementAndGet(),
                    null,
                    SUBMIT_TIMEOUT_MS)));
  }

  @Override
  public long instance() {
    return groupId.getUuid().getMostSignificantBits();
  }

  @Override
  public <T> T read(Function<ClusterState, T> reader) {
    return state.read(reader);
  }

  @Override
  public void onApplied(Runnable listener) {
    state.onApplied(listener);
  }

  @Override
  public void close() {
    watch.shutdownNow();
    try {
      server.close();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
