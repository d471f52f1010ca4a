package io.kvtier.deploy.command;

import io.kvtier.KvtierException;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.coordinator.ReplicationConfig;
import io.kvtier.coordinator.ReplicationConfig.Peer;
import io.kvtier.rpc.EndpointConfig;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** Whether a coordinator keeps its state, and with whom it agrees on it. */
final class ReplicationOptions {
  @Option(
      names = "--data",
      description =
          "directory where the coordinator keeps its log and snapshots, so that a restart finds all"
              + " sessions (default: none, in memory); required with --peers")
  private @Nullable Path data;

  @Option(
      names = "--peers",
      description =
          "all coordinators of the cluster, this one too, the same for each:"
              + " id=host:raftport:grpcport with commas between them; 3, 5 or 7")
  private String peers = "";

  @Option(names = "--id", description = "which of the peers this coordinator is")
  private String id = "";

  CoordinatorConfig applyTo(CoordinatorConfig config) {
    if (peers.isEmpty()) {
      if (!id.isEmpty()) {
        throw KvtierException.invalid("--id is '%s' without --peers; give both or none", id);
      }
      return data == null ? config : config.withReplication(ReplicationConfig.alone(data));
    }
    if (data == null || id.isEmpty()) {
      throw KvtierException.invalid(
          "--peers needs --id, which of them this is, and --data, a directory for its log");
    }
    ReplicationConfig replication = new ReplicationConfig(id, parse(peers), data);
    return config
        .withEndpoint(endpoint(config.endpoint(), replication.own()))
        .withReplication(replication);
  }

  /** Where the others say that this one is, unless it is told to listen elsewhere. */
  private static EndpointConfig endpoint(EndpointConfig given, Peer own) {
    if (given.port() != 0 && given.port() != own.grpcPort()) {
      throw KvtierException.invalid(
          "--port is %d and --peers says %d for %s; leave --port away",
          given.port(), own.grpcPort(), own.id());
    }
    String host = given.host().equals(EndpointConfig.LOOPBACK) ? own.host() : given.host();
    return new EndpointConfig(host, own.grpcPort(), given.opsPort());
  }

  private static List<Peer> parse(String text) {
    List<Peer> peers = new ArrayList<>();
    for (String part : text.split(",", -1)) {
      int equals = part.indexOf('=');
      int grpc = part.lastIndexOf(':');
      int raft = grpc < 0 ? -1 : part.lastIndexOf(':', grpc - 1);
      if (equals < 1 || raft <= equals + 1) {
        throw KvtierException.invalid(
            "'%s' in --peers is not id=host:raftport:grpcport, as in c1=10.0.0.1:7401:7400", part);
      }
      peers.add(
          new Peer(
              part.substring(0, equals).strip(),
              part.substring(equals + 1, raft),
              port(part.substring(raft + 1, grpc), part),
              port(part.substring(grpc + 1), part)));
    }
    return peers;
  }

  private static int port(String text, String part) {
    try {
      return Integer.parseInt(text.strip());
    } catch (NumberFormatException e) {
      throw KvtierException.invalid("'%s' in --peers '%s' is no port", text, part);
    }
  }
}
