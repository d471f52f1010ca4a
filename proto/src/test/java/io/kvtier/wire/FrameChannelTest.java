package io.kvtier.wire;

import static java.nio.charset.StandardCharsets.US_ASCII;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import java.io.EOFException;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Frames arrive as they were sent, however the system cuts them. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class FrameChannelTest {
  private static final int BODY_BYTES_MAX = 2 << 20;

  private SocketChannel near;
  private SocketChannel far;

  @BeforeEach
  void connect() throws IOException {
    try (ServerSocketChannel listener = ServerSocketChannel.open()) {
      listener.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
      near = SocketChannel.open(listener.getLocalAddress());
      far = listener.accept();
    }
  }

  @AfterEach
  void close() throws IOException {
    near.close();
    far.close();
  }

  @Test
  void framesOfAnySizeArrive() throws Exception {
    long seed = System.nanoTime();
    System.out.println("FrameChannelTest seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    List<byte[]> bodies = new ArrayList<>();
    for (int i = 0; i < 300; i++) {
      byte[] body = new byte[i % 50 == 7 ? random.nextInt(BODY_BYTES_MAX) : random.nextInt(90_000)];
      random.nextBytes(body);
      bodies.add(body);
    }
    try (ExecutorService sender = Executors.newSingleThreadExecutor();
        FrameChannel out = new FrameChannel(far, BODY_BYTES_MAX);
        FrameChannel in = new FrameChannel(near, BODY_BYTES_MAX)) {
      Future<?> sending =
          sender.submit(() -> {
            out.greet();
            for (int i = 0; i < bodies.size(); i++) {
              out.add((byte) (i % 100), OutgoingBytes.whole(bodies.get(i)));
              if (i % 3 == 0) {
                out.flush();
              }
            }
            out.flush();
            far.shutdownOutput();
            return null;
          });
      in.awaitGreeting();
      for (int i = 0; i < bodies.size(); i++) {
        assertThat(in.nextFrame()).isTrue();
        assertThat(in.kind()).isEqualTo((byte) (i % 100));
        byte[] body = new byte[in.bodyBuffer().remaining()];
        in.bodyBuffer().get(body);
        assertThat(body).isEqualTo(bodies.get(i));
      }
      assertThat(in.nextFrame()).isFalse();
      sending.get(30, TimeUnit.SECONDS);
    }
  }

  private void send(int length, int sent) throws IOException {
    ByteBuffer bytes = ByteBuffer.allocate(Frames.HEADER_BYTES + sent);
    bytes.order(ByteOrder.LITTLE_ENDIAN).putInt(length).putInt(Frames.GET);
    far.write(bytes.clear());
  }

  @ParameterizedTest
  @ValueSource(ints = {BODY_BYTES_MAX + 1, -1})
  void aFrameAboveTheBoundIsRefusedBeforeMemoryIsTaken(int length) throws IOException {
    FrameChannel in = new FrameChannel(near, BODY_BYTES_MAX);
    send(length, 0);
    assertThatThrownBy(in::nextFrame)
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining(Integer.toUnsignedString(length))
        .hasMessageContaining("it must have 0.." + BODY_BYTES_MAX);
  }

  @Test
  void anEndInsideAFrameIsNoFrame() throws IOException {
    FrameChannel in = new FrameChannel(near, BODY_BYTES_MAX);
    send(100, 99);
    far.close();
    assertThatThrownBy(in::nextFrame).isInstanceOf(EOFException.class);
  }

  @Test
  void anotherProtocolIsRefused() throws IOException {
    FrameChannel in = new FrameChannel(near, BODY_BYTES_MAX);
    far.write(ByteBuffer.wrap("PRI * HTTP/2.0\r\n".getBytes(US_ASCII)));
    assertThatThrownBy(in::awaitGreeting)
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("does not speak this protocol");
  }
}
