package io.kvtier.coordinator;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.regex.Pattern;

/**
 * How coordinators agree on their state and keep it.
 *
 * @param self this coordinator's id, one of the peers'
 * @param peers all coordinators of the cluster, the same for each of them; one, or an odd number up
 *     to seven
 * @param data directory of this coordinator's log and snapshots
 */
public record ReplicationConfig(String self, List<Peer> peers, Path data) {
  private static final int PEERS_MAX = 7;
  private static final Pattern ID = Pattern.compile("[A-Za-z0-9_-]{1,32}");
  private static final Pattern HOST = Pattern.compile("[A-Za-z0-9._\\[\\]:-]{1,255}");

  /**
   * One coordinator.
   *
   * @param id unique in the cluster, 1..32 characters of [A-Za-z0-9_-]
   * @param host where the others, clients and nodes reach it
   * @param raftPort TCP port for the other coordinators, 1..65535; 0: any free one, where there are
   *     no others
   * @param grpcPort TCP port for clients and nodes, 1..65535; 0: not known, where there are no
   *     others
   */
  public record Peer(String id, String host, int raftPort, int grpcPort) {
    public Peer {
      if (!ID.matcher(id).matches()) {
        throw KvtierException.invalid(
            "peer's id is '%s'; it must be 1..32 characters of [A-Za-z0-9_-]", id);
      }
      if (!HOST.matcher(host).matches()) {
        throw KvtierException.invalid("host of peer %s is '%s'; it must be a host name", id, host);
      }
      requireInRange("raft port of peer " + id, raftPort, 0, 0xFFFF);
      requireInRange("gRPC port of peer " + id, grpcPort, 0, 0xFFFF);
    }

    /** Where clients and nodes reach it, host:port. */
    public String target() {
      return host + ":" + grpcPort;
    }
  }

  public ReplicationConfig {
    peers = List.copyOf(peers);
    if (peers.isEmpty() || peers.size() > PEERS_MAX || peers.size() % 2 == 0) {
      throw KvtierException.invalid(
          "%d peers are given; there must be 1, 3, 5 or 7: an even number survives no more losses",
          peers.size());
    }
    Set<String> ids = new HashSet<>();
    Set<String> addresses = new HashSet<>();
    for (Peer peer : peers) {
      if (!ids.add(peer.id())) {
        throw KvtierException.invalid("peer's id %s is given twice; it must be unique", peer.id());
      }
      if (peers.size() > 1) {
        requireInRange("raft port of peer " + peer.id(), peer.raftPort(), 1, 0xFFFF);
        requireInRange("gRPC port of peer " + peer.id(), peer.grpcPort(), 1, 0xFFFF);
        if (!addresses.add(peer.target()) || !addresses.add(peer.host() + ":" + peer.raftPort())) {
          throw KvtierException.invalid(
              "peer %s has an address that is another's, or twice the same port", peer.id());
        }
      }
    }
    if (!ids.contains(self)) {
      throw KvtierException.invalid(
          "this coordinator is '%s' and the peers are %s; it must be one of them",
          self, ids.stream().sorted().toList());
    }
  }

  /** A coordinator that has no others, and keeps its state in a directory. */
  public static ReplicationConfig alone(Path data) {
    return new ReplicationConfig("c1", List.of(new Peer("c1", "127.0.0.1", 0, 0)), data);
  }

  /** This coordinator. */
  public Peer own() {
    return peers.stream().filter(peer -> peer.id().equals(self)).findFirst().orElseThrow();
  }
}
