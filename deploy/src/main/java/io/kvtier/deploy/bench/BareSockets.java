package io.kvtier.deploy.bench;

import io.kvtier.deploy.bench.Duel.Contender;
import java.io.EOFException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.List;

/**
 * What loopback TCP gives at most: a thread that writes values from memory, one write each, and the
 * caller who reads them into memory, without a protocol, checksums or a further copy. Sockets are
 * as the system makes them.
 */
final class BareSockets implements Contender, AutoCloseable {
  private static final int READ_BYTES = 256 << 10;

  private final SocketChannel near;
  private final SocketChannel far;
  private final List<ByteBuffer> values;
  private final ByteBuffer target;
  private final ByteBuffer ask = ByteBuffer.allocateDirect(1);

  /**
   * Connects and begins to serve.
   *
   * @param values all are sent for each call
   */
  BareSockets(List<ByteBuffer> values) {
    this.values = values;
    this.target = ByteBuffer.allocateDirect(values.stream().mapToInt(ByteBuffer::remaining).sum());
    try (ServerSocketChannel listener = ServerSocketChannel.open()) {
      listener.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
      this.near = SocketChannel.open(listener.getLocalAddress());
      this.far = listener.accept();
    } catch (IOException e) {
      throw new UncheckedIOException("no bare sockets to compare with", e);
    }
    Thread.ofPlatform().daemon().name("kvtier-bench-bare").start(this::serve);
  }

  private void serve() {
    ByteBuffer asked = ByteBuffer.allocateDirect(1);
    try {
      while (far.read(asked.clear()) > 0) {
        for (ByteBuffer value : values) {
          for (ByteBuffer left = value.duplicate(); left.hasRemaining(); ) {
            far.write(left);
          }
        }
      }
    } catch (ClosedChannelException e) {
      // The comparison is over.
    } catch (IOException e) {
      throw new UncheckedIOException("a bare socket failed", e);
    }
  }

  @Override
  public void call() {
    try {
      near.write(ask.clear());
      for (target.clear(); target.position() < target.capacity(); ) {
        target.limit(Math.min(target.capacity(), target.position() + READ_BYTES));
        if (near.read(target) < 0) {
          throw new EOFException("a bare socket was closed");
        }
      }
    } catch (IOException e) {
      throw new UncheckedIOException("a bare socket failed", e);
    }
  }

  @Override
  public void close() {
    try {
      near.close();
      far.close();
    } catch (IOException e) {
      throw new UncheckedIOException("a bare socket cannot be closed", e);
    }
  }
}
