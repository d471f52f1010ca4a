package io.kvtier.deploy.command;

import io.kvtier.client.Coordinators;
import io.kvtier.v1.ClusterGrpc;
import io.kvtier.v1.ClusterGrpc.ClusterBlockingStub;
import io.kvtier.v1.DrainRequest;
import io.kvtier.v1.DrainResponse;
import io.kvtier.v1.MembershipRequest;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.Node;
import io.kvtier.v1.NodeState;
import io.kvtier.v1.Role;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Lists the nodes of a cluster, and takes one out of work so that it can be stopped. */
@Command(
    name = "nodes",
    description = {
      "Lists the workers and cache tiers of a running cluster. With --drain, a node gets no new",
      "sessions or pages from then on, so that it can be stopped: a worker's sessions move when"
          + " they",
      "are used next; a tier goes on serving what it has."
    },
    mixinStandardHelpOptions = true)
public final class NodesCommand implements Callable<Integer> {
  private static final Duration TIMEOUT = Duration.ofSeconds(10);
  private static final double MIB = 1 << 20;

  @Option(
      names = "--endpoint",
      required = true,
      description = "the coordinator, host:port; of several, all with commas between them")
  private String endpoint = "";

  @ArgGroup private @Nullable Change change;

  /** One of the two. */
  private static final class Change {
    @Option(
        names = "--drain",
        paramLabel = "NODE",
        description = "the node that is to give up its work; asked again, it tells how far it is")
    private @Nullable String drain;

    @Option(
        names = "--undrain",
        paramLabel = "NODE",
        description = "the node that is to take work again")
    private @Nullable String undrain;
  }

  @Override
  public Integer call() {
    try (Coordinators coordinators = Coordinators.at(endpoint)) {
      Optional<String> told = Optional.ofNullable(change).map(asked -> tell(coordinators, asked));
      print(call(coordinators, stub -> stub.membership(MembershipRequest.getDefaultInstance())));
      told.ifPresent(System.out::println);
    }
    return 0;
  }

  private static String tell(Coordinators coordinators, Change asked) {
    boolean undo = asked.drain == null;
    String node = undo ? String.valueOf(asked.undrain) : asked.drain;
    DrainResponse answer =
        call(
            coordinators,
            stub -> stub.drain(DrainRequest.newBuilder().setNodeId(node).setUndo(undo).build()));
    if (undo) {
      return "%s takes work again".formatted(node);
    }
    return answer.getSessions() == 0
        ? "%s gets nothing new; it has no session".formatted(node)
        : "%s gets nothing new; %d sessions are there still and move when they are used next"
            .formatted(node, answer.getSessions());
  }

  private static <R> R call(Coordinators coordinators, Function<ClusterBlockingStub, R> method) {
    return coordinators.call(ClusterGrpc::newBlockingStub, TIMEOUT, method);
  }

  private static void print(MembershipResponse members) {
    System.out.printf("%-24s %-7s %-24s %12s  %s%n", "node", "role", "target", "MiB", "state");
    for (Node node : members.getNodesList()) {
      System.out.printf(
          "%-24s %-7s %-24s %,12.0f  %s%n",
          node.getNodeId(),
          node.getRole() == Role.ROLE_TIER ? "tier" : "worker",
          node.getTarget(),
          node.getBytesMax() / MIB,
          node.getState() == NodeState.NODE_STATE_DRAINING ? "draining" : "active");
    }
  }
}
