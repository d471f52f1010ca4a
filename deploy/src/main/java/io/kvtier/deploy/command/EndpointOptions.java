package io.kvtier.deploy.command;

import io.kvtier.rpc.EndpointConfig;
import picocli.CommandLine.Option;

/** Where a service listens. */
final class EndpointOptions {
  @Option(
      names = "--host",
      defaultValue = EndpointConfig.LOOPBACK,
      description = "address to listen on (default: ${DEFAULT-VALUE}, this machine alone)")
  String host = EndpointConfig.LOOPBACK;

  @Option(
      names = "--port",
      defaultValue = "0",
      description = "gRPC port (default: any free one, printed at start)")
  int port;

  @Option(
      names = "--ops-port",
      defaultValue = "0",
      description = "port of the /metrics and /health pages (default: any free one)")
  int opsPort;

  EndpointConfig config() {
    return new EndpointConfig(host, port, opsPort);
  }
}
