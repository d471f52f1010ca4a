package io.kvtier.rpc;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import java.nio.file.Path;
import java.util.Optional;

/**
 * Where a service listens.
 *
 * @param host address of both listeners; loopback unless configured otherwise
 * @param port gRPC port, 0..65535; 0: the system chooses
 * @param opsPort port of the {@code /metrics} and {@code /health} pages, 0..65535; 0: the system
 *     chooses
 * @param socket Unix-domain socket to serve on as well, for processes of the same user; Linux
 */
public record EndpointConfig(String host, int port, int opsPort, Optional<Path> socket) {
  public static final String LOOPBACK = "127.0.0.1";

  public EndpointConfig {
    if (host.isBlank()) {
      throw KvtierException.invalid("host is blank; give an address, for example %s", LOOPBACK);
    }
    requireInRange("port", port, 0, 0xFFFF);
    requireInRange("ops port", opsPort, 0, 0xFFFF);
    socket.ifPresent(UnixSockets::require);
  }

  /** Without a Unix-domain socket. */
  public EndpointConfig(String host, int port, int opsPort) {
    this(host, port, opsPort, Optional.empty());
  }

  /** The same, on a Unix-domain socket as well. */
  public EndpointConfig withSocket(Path path) {
    return new EndpointConfig(host, port, opsPort, Optional.of(path));
  }

  /** Loopback, on ports that the system chooses. */
  public static EndpointConfig loopback() {
    return new EndpointConfig(LOOPBACK, 0, 0);
  }
}
