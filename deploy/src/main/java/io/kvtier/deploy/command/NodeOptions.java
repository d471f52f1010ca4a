package io.kvtier.deploy.command;

import picocli.CommandLine.Option;

/** How a worker or tier node joins its cluster. */
final class NodeOptions {
  @Option(
      names = "--coordinator",
      required = true,
      description =
          "the coordinator to join, host:port; of a cluster of several, all with commas between"
              + " them")
  String coordinator = "";

  @Option(
      names = "--node-id",
      description = "name in the cluster (default: role and process id); unique, [A-Za-z0-9._-]")
  String nodeId = "";

  String nodeId(String role) {
    return nodeId.isEmpty() ? role + "-" + ProcessHandle.current().pid() : nodeId;
  }
}
