package io.kvtier.cachetier.grpc;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** A wire that flips one bit of one byte of what the server of its first connection answers. */
final class FlippingProxy implements AutoCloseable {
  private final ServerSocketChannel listener = ServerSocketChannel.open();
  private final List<SocketChannel> ends = new CopyOnWriteArrayList<>();
  private final int serverPort;

  /** Counts the server's bytes down to the one that is flipped; negative: none. */
  private volatile long flipAfter = -1;

  FlippingProxy(int serverPort) throws IOException {
    this.serverPort = serverPort;
    listener.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    Thread.ofPlatform().daemon().start(this::accept);
  }

  int port() throws IOException {
    return ((InetSocketAddress) listener.getLocalAddress()).getPort();
  }

  /** From now on, the server's byte after so many others is flipped, once. */
  void flipAfter(long bytes) {
    flipAfter = bytes;
  }

  boolean flipped() {
    return flipAfter == -2;
  }

  private void accept() {
    try {
      while (true) {
        SocketChannel client = listener.accept();
        SocketChannel server =
            SocketChannel.open(new InetSocketAddress(InetAddress.getLoopbackAddress(), serverPort));
        ends.add(client);
        ends.add(server);
        Thread.ofPlatform().daemon().start(() -> forward(client, server, false));
        Thread.ofPlatform().daemon().start(() -> forward(server, client, true));
      }
    } catch (IOException closed) {
      // The test is over.
    }
  }

  private void forward(SocketChannel from, SocketChannel to, boolean answers) {
    ByteBuffer bytes = ByteBuffer.allocate(32 << 10);
    try (from;
        to) {
      while (from.read(bytes.clear()) >= 0) {
        bytes.flip();
        if (answers) {
          flip(bytes);
        }
        while (bytes.hasRemaining()) {
          to.write(bytes);
        }
      }
    } catch (IOException closed) {
      // One end has gone; the other goes too.
    }
  }

  private synchronized void flip(ByteBuffer bytes) {
    if (flipAfter >= 0 && flipAfter < bytes.remaining()) {
      int at = (int) flipAfter;
      bytes.put(at, (byte) (bytes.get(at) ^ 1));
      flipAfter = -2;
    } else if (flipAfter >= 0) {
      flipAfter -= bytes.remaining();
    }
  }

  @Override
  public void close() throws IOException {
    listener.close();
    for (SocketChannel end : ends) {
      end.close();
    }
  }
}
