package io.kvtier.wire;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.channels.SocketChannel;
import org.junit.jupiter.api.Test;

/** What the system may hold between two ends. */
final class SocketBuffersTest {
  /** Twice 128 KiB, as the system counts. */
  private static final int BYTES_MAX = 256 << 10;

  @Test
  void thoseOfASocketOnThisHostAreBounded() throws IOException {
    try (SocketChannel socket = SocketChannel.open()) {
      SocketBuffers.bound(socket, new InetSocketAddress(InetAddress.getLoopbackAddress(), 1));
      assertThat(socket.getOption(StandardSocketOptions.SO_SNDBUF))
          .isBetween(BYTES_MAX / 2, BYTES_MAX);
      assertThat(socket.getOption(StandardSocketOptions.SO_RCVBUF))
          .isBetween(BYTES_MAX / 2, BYTES_MAX);
    }
  }

  @Test
  void thoseOfASocketToAnotherHostAreLeftToTheSystem() throws IOException {
    try (SocketChannel socket = SocketChannel.open()) {
      int send = socket.getOption(StandardSocketOptions.SO_SNDBUF);
      int receive = socket.getOption(StandardSocketOptions.SO_RCVBUF);
      // Of the addresses kept for documents: nobody has it.
      SocketBuffers.bound(socket, new InetSocketAddress("192.0.2.1", 1));
      assertThat(socket.getOption(StandardSocketOptions.SO_SNDBUF)).isEqualTo(send);
      assertThat(socket.getOption(StandardSocketOptions.SO_RCVBUF)).isEqualTo(receive);
    }
  }
}
