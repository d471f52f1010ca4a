package io.kvtier.coordinator;

import java.io.IOException;
import java.net.BindException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.util.concurrent.ThreadLocalRandom;

/**
 * Ports for servers that must know them before they listen, or listen again later: none of those
 * that the system deals out, which whoever connects meanwhile may get.
 */
public final class FreePorts {
  private static final int FIRST = 10_000;
  private static final int END = 30_000;

  private FreePorts() {}

  /** A port on which nobody listens. */
  public static int next() throws IOException {
    BindException taken = new BindException("no port from %d on is free".formatted(FIRST));
    for (int attempt = 0; attempt < 100; attempt++) {
      int port = ThreadLocalRandom.current().nextInt(FIRST, END);
      try (ServerSocket socket = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
        return socket.getLocalPort();
      } catch (BindException e) {
        taken.addSuppressed(e);
      }
    }
    throw taken;
  }
}
