package io.kvtier.wire;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardSocketOptions;
import java.nio.channels.SocketChannel;

/**
 * How much the system holds between two ends on one host. By itself it lets megabytes pile up,
 * which leave the processor's caches before they are read; between hosts that much is needed to
 * fill the line, and is left alone.
 */
public final class SocketBuffers {
  /** The system takes twice as much, for what it keeps beside the bytes. */
  private static final int BYTES = 128 << 10;

  private SocketBuffers() {}

  /** Bounds the buffers of a TCP socket that is, or is to be, connected to this address. */
  public static void bound(SocketChannel channel, SocketAddress remote) throws IOException {
    if (remote instanceof InetSocketAddress other && isHere(channel, other)) {
      channel.setOption(StandardSocketOptions.SO_SNDBUF, BYTES);
      channel.setOption(StandardSocketOptions.SO_RCVBUF, BYTES);
    }
  }

  private static boolean isHere(SocketChannel channel, InetSocketAddress remote)
      throws IOException {
    return remote.getAddress() != null
        && (remote.getAddress().isLoopbackAddress()
            || (channel.getLocalAddress() instanceof InetSocketAddress own
                && remote.getAddress().equals(own.getAddress())));
  }
}
