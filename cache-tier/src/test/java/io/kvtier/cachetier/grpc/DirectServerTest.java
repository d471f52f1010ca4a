package io.kvtier.cachetier.grpc;

import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.grpc.Status;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.GetRequest;
import io.kvtier.wire.FrameChannel;
import io.kvtier.wire.Frames;
import io.kvtier.wire.OutgoingBytes;
import io.kvtier.wire.PageMessages;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The direct path frame by frame: its limits, its refusals, and a client that does not read. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class DirectServerTest {
  private static final PageLayout LAYOUT = TestPages.raw16(8, 128);
  private static final int PAGES = 256;
  private static final int CONNECTIONS = 3;
  private static final long CONNECTION_BYTES = 768 << 10;

  /** What sockets and buffers of both ends may hold of answers that nobody reads. */
  private static final long AHEAD_BYTES_MAX = 16 << 20;

  @TempDir Path directory;

  private ChroniclePageStore store;
  private PageService pages;
  private DirectServer server;

  @BeforeEach
  void start() {
    store = ChroniclePageStore.openTemporary(128 << 20);
    pages = new PageService(store);
    server =
        DirectServer.start(
            pages,
            EndpointConfig.LOOPBACK,
            0,
            Optional.of(directory.resolve("direct")),
            CONNECTIONS,
            DirectServer.BUFFER_BYTES_MAX,
            DirectServer.Patience.DEFAULT);
  }

  @AfterEach
  void stop() {
    server.close();
    store.close();
  }

  private FrameChannel connect() throws IOException {
    return connect(server);
  }

  private static FrameChannel connect(DirectServer to) throws IOException {
    SocketChannel socket =
        SocketChannel.open(new InetSocketAddress(InetAddress.getLoopbackAddress(), to.port()));
    FrameChannel channel = new FrameChannel(socket, 32 << 20);
    channel.greet();
    channel.awaitGreeting();
    return channel;
  }

  private static PageKey keyOf(int index) {
    return key(1, index, 0, LAYOUT);
  }

  private static OutgoingBytes getRequest() {
    GetRequest.Builder request = GetRequest.newBuilder();
    for (int i = 0; i < PAGES; i++) {
      request.addKeys(keyOf(i).toByteString());
    }
    return OutgoingBytes.whole(request.build().toByteArray());
  }

  @Test
  void aClientThatDoesNotReadHoldsNoLockAndABoundedNumberOfBytes() throws IOException {
    for (int i = 0; i < PAGES; i++) {
      pages.put(keyOf(i), page(LAYOUT, 0, i), 0, LAYOUT.pageLength());
    }
    try (FrameChannel slow = connect();
        FrameChannel other = connect()) {
      slow.add(Frames.GET, getRequest());
      slow.flush();
      assertThat(slow.nextFrame()).isTrue();
      for (int i = 0; i < PAGES; i++) {
        // Each waits for the page's lock, which the slow reader's thread must not keep.
        assertThat(pages.delete(keyOf(PAGES - 1 - i))).isTrue();
        assertThat(containsFirst(other)).isEqualTo(i < PAGES - 1);
      }
      assertThat(pages.counts().hits()).isPositive();
      assertThat(pages.counts().bytesOut()).isLessThan(AHEAD_BYTES_MAX);
      int served = 1;
      int missed = 0;
      while (slow.nextFrame() && slow.kind() == Frames.ANSWER) {
        boolean page = slow.bodyBuffer().remaining() > LAYOUT.pageLength();
        served += page ? 1 : 0;
        missed += page ? 0 : 1;
      }
      assertThat(served + missed).isEqualTo(PAGES);
      assertThat(missed).isPositive();
      assertThat(slow.kind()).isEqualTo(Frames.END);
    }
  }

  /** Two connections at their start have all of the bound, which one of them needs for a page. */
  @Test
  void allConnectionsBuffersTogetherAreBounded() throws IOException {
    long bound = 2 * CONNECTION_BYTES;
    pages.put(keyOf(0), page(LAYOUT, 0, 0), 0, LAYOUT.pageLength());
    OutgoingBytes request =
        OutgoingBytes.whole(
            GetRequest.newBuilder().addKeys(keyOf(0).toByteString()).build().toByteArray());
    try (DirectServer small =
        DirectServer.start(
            pages,
            EndpointConfig.LOOPBACK,
            0,
            Optional.empty(),
            CONNECTIONS,
            bound,
            DirectServer.Patience.DEFAULT)) {
      try (FrameChannel alone = connect(small)) {
        for (int i = 0; i < 3; i++) {
          alone.add(Frames.GET, request);
          alone.flush();
          assertThat(alone.nextFrame()).isTrue();
          assertThat(alone.bodyBuffer().remaining()).isGreaterThan(LAYOUT.pageLength());
          assertThat(alone.nextFrame()).isTrue();
          assertThat(alone.kind()).isEqualTo(Frames.END);
          assertThat(containsFirst(alone)).isTrue();
          assertThat(small.bufferBytes()).as("given back").isEqualTo(CONNECTION_BYTES);
        }
        try (FrameChannel second = connect(small)) {
          assertThat(small.bufferBytes()).isEqualTo(bound);
          second.add(Frames.GET, request);
          second.flush();
          assertThat(second.nextFrame()).isTrue();
          assertThat(second.kind()).isEqualTo(Frames.ERROR);
          PageMessages.Refusal refusal = PageMessages.readRefusal(second.body());
          assertThat(refusal.code()).isEqualTo(Status.Code.RESOURCE_EXHAUSTED.value());
          assertThat(refusal.message()).contains("have %d of %d bytes".formatted(bound, bound));
          assertThat(second.nextFrame()).isFalse();
        }
        assertThat(containsFirst(alone)).isTrue();
      }
      while (small.bufferBytes() > 0) {
        Thread.onSpinWait();
      }
    }
  }

  private static boolean containsFirst(FrameChannel channel) throws IOException {
    channel.add(Frames.CONTAINS, OutgoingBytes.whole(keyOf(0).toBytes()));
    channel.flush();
    assertThat(channel.nextFrame()).isTrue();
    return channel.bodyBuffer().get(0) == 1;
  }

  private void assertRefused(byte kind, byte[] body, String message) throws IOException {
    try (FrameChannel channel = connect()) {
      channel.add(kind, OutgoingBytes.whole(body));
      channel.flush();
      assertThat(channel.nextFrame()).isTrue();
      assertThat(channel.kind()).isEqualTo(Frames.ERROR);
      PageMessages.Refusal refusal = PageMessages.readRefusal(channel.body());
      assertThat(refusal.code()).isEqualTo(Status.Code.INVALID_ARGUMENT.value());
      assertThat(refusal.message()).contains(message);
      assertThat(channel.nextFrame()).isFalse();
    }
  }

  @Test
  void aWrongRequestIsRefusedWithItsReasonAndEndsItsConnection() throws IOException {
    assertRefused((byte) 99, new byte[0], "frame is of kind 99; it must be a request, 16..21");
    assertRefused(Frames.GET, new byte[] {(byte) 0xFF}, "the request of kind 16 cannot be read");
    assertRefused(Frames.GET, new byte[0], "number of keys is 0; it must be 1..1024");
    assertRefused(Frames.CONTAINS, new byte[0], "number of keys is 0; it must be 1..1024");
    assertRefused(Frames.CONTAINS, new byte[33], "keys have 33 bytes; they must have 32 each");
    assertRefused(Frames.CONTAINS, new byte[32], "ends in 0000");
    assertRefused(Frames.PUT, new byte[] {10, 3, 1, 2, 3}, "page key has 3 bytes");
    assertRefused(Frames.PUT, new byte[] {18, 100, 1}, "the message has");
    assertRefused(Frames.SECTIONS, new byte[] {10, 2, 10, 0}, "pages[0]: page key has 0 bytes");
    assertRefused(Frames.TENANT, new byte[] {'a', '/'}, "tenant is 'a/'");
    assertRefused(Frames.ROWS, new byte[0], "number of pages is 0; it must be 1..1024");
    assertRefused(Frames.ROWS, new byte[] {10, 2, 10, 0}, "pages[0]: page key has 0 bytes");
    assertThat(store.pages()).isZero();
  }

  @Test
  void whoSaysNothingIsNotWaitedFor() throws IOException {
    DirectServer.Patience patience =
        new DirectServer.Patience(Duration.ofMillis(200), Duration.ofMillis(1500));
    try (DirectServer impatient =
            DirectServer.start(
                pages,
                EndpointConfig.LOOPBACK,
                0,
                Optional.empty(),
                CONNECTIONS,
                DirectServer.BUFFER_BYTES_MAX,
                patience);
        FrameChannel greets = connect(impatient);
        SocketChannel silent =
            SocketChannel.open(
                new InetSocketAddress(InetAddress.getLoopbackAddress(), impatient.port()))) {
      assertThat(silent.read(ByteBuffer.allocate(8))).as("closed").isNegative();
      assertThat(containsFirst(greets)).isFalse();
      assertThat(greets.nextFrame()).as("closed").isFalse();
    }
  }

  @Test
  void connectionsAreBounded() throws IOException {
    FrameChannel[] open = new FrameChannel[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) {
      open[i] = connect();
    }
    assertThat(server.connections()).isEqualTo(CONNECTIONS);
    try (FrameChannel refused = connect()) {
      assertThat(refused.nextFrame()).isTrue();
      assertThat(refused.kind()).isEqualTo(Frames.ERROR);
      PageMessages.Refusal refusal = PageMessages.readRefusal(refused.body());
      assertThat(refusal.code()).isEqualTo(Status.Code.RESOURCE_EXHAUSTED.value());
      assertThat(refusal.message()).contains("3 connections are open");
    }
    for (FrameChannel channel : open) {
      assertThat(containsFirst(channel)).isFalse();
      channel.close();
    }
  }

  @Test
  void itsSocketIsForThisUserAloneAndGoesWithIt() throws IOException {
    Path socket = directory.resolve("direct");
    assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(socket)))
        .isEqualTo("rw-------");
    try (SocketChannel channel = SocketChannel.open(UnixDomainSocketAddress.of(socket))) {
      assertThat(channel.isConnected()).isTrue();
    }
    assertThatThrownBy(
            () -> DirectServer.start(pages, EndpointConfig.LOOPBACK, 0, Optional.of(socket)))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.PRECONDITION))
        .hasMessageContaining("in use by another process");
    assertThat(socket).exists();
    server.close();
    assertThat(socket).doesNotExist();
    assertThat(server.connections()).isZero();
  }
}
