package io.kvtier.coordinator.raft;

import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.ratis.conf.RaftProperties;
import org.apache.ratis.grpc.GrpcConfigKeys;
import org.apache.ratis.server.RaftServerConfigKeys;
import org.apache.ratis.util.SizeInBytes;
import org.apache.ratis.util.TimeDuration;

/** How Ratis is set up. */
final class RaftSettings {
  /** Longest command; a session of 32 layers, 8 KV heads and 128k tokens takes 60 KiB. */
  static final int COMMAND_BYTES_MAX = 15 << 20;

  private static final SizeInBytes BATCH_BYTES = SizeInBytes.valueOf("16MB");
  private static final SizeInBytes BUFFER_BYTES = SizeInBytes.valueOf("17MB");
  private static final SizeInBytes MESSAGE_BYTES = SizeInBytes.valueOf("64MB");

  /**
   * A coordinator that has not been heard for so long is taken for lost, and another one elected:
   * twice that and some more is the time without service.
   */
  private static final Duration ELECTION_MIN = Duration.ofMillis(600);

  private static final Duration ELECTION_MAX = Duration.ofMillis(1_200);

  /** The first time there is nobody to be heard. */
  private static final Duration FIRST_ELECTION = Duration.ofMillis(100);

  /** Commands between two snapshots. */
  static final long SNAPSHOT_COMMANDS = 10_000;

  private static final int SNAPSHOTS_KEPT = 2;

  private RaftSettings() {}

  static RaftProperties of(String address, Path data, int peers, long snapshotCommands) {
    RaftProperties properties = new RaftProperties();
    int colon = address.lastIndexOf(':');
    GrpcConfigKeys.Server.setHost(properties, address.substring(0, colon));
    GrpcConfigKeys.Server.setPort(properties, Integer.parseInt(address.substring(colon + 1)));
    GrpcConfigKeys.setMessageSizeMax(properties, MESSAGE_BYTES);
    RaftServerConfigKeys.setStorageDir(properties, List.of(data.toFile()));
    RaftServerConfigKeys.Rpc.setTimeoutMin(properties, time(ELECTION_MIN));
    RaftServerConfigKeys.Rpc.setTimeoutMax(properties, time(ELECTION_MAX));
    RaftServerConfigKeys.Rpc.setFirstElectionTimeoutMin(properties, time(FIRST_ELECTION));
    RaftServerConfigKeys.Rpc.setFirstElectionTimeoutMax(
        properties, time(peers == 1 ? FIRST_ELECTION.multipliedBy(2) : ELECTION_MAX));
    // A read is confirmed by a majority, or by a lease that it has given: an old leader's ends
    // before another can be elected.
    RaftServerConfigKeys.Read.setOption(properties, RaftServerConfigKeys.Read.Option.LINEARIZABLE);
    RaftServerConfigKeys.Read.setLeaderLeaseEnabled(properties, true);
    RaftServerConfigKeys.Log.setWriteBufferSize(properties, BUFFER_BYTES);
    RaftServerConfigKeys.Log.Appender.setBufferByteLimit(properties, BATCH_BYTES);
    RaftServerConfigKeys.Log.setPurgeUptoSnapshotIndex(properties, true);
    RaftServerConfigKeys.Snapshot.setAutoTriggerEnabled(properties, true);
    RaftServerConfigKeys.Snapshot.setAutoTriggerThreshold(properties, snapshotCommands);
    RaftServerConfigKeys.Snapshot.setRetentionFileNum(properties, SNAPSHOTS_KEPT);
    return properties;
  }

  private static TimeDuration time(Duration duration) {
    return TimeDuration.valueOf(duration.toMillis(), TimeUnit.MILLISECONDS);
  }
}
