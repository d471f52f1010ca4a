package io.kvtier.cachetier.grpc;

import static io.kvtier.cachetier.TestPages.ROT4;
import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.FlippingPageStore;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.client.PagesClient;
import io.kvtier.client.PagesClient.Option;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.DirectResponse;
import io.kvtier.v1.SectionsOf;
import io.kvtier.wire.FrameChannel;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Executors;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The client and the service, over every way between them. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class PagesClientTest {
  private static final PageLayout LARGE = TestPages.raw16(8, 128);
  private static final Duration DEADLINE = Duration.ofSeconds(30);

  @TempDir Path directory;

  private FlippingPageStore store;
  private PageService pages;
  private DirectServer direct;
  private FlippingProxy directWire;
  private FlippingProxy grpcWire;
  private Endpoint endpoint;

  enum Way {
    GRPC_TCP,
    GRPC_UNIX,
    DIRECT_TCP,
    DIRECT_UNIX
  }

  @BeforeEach
  void start() throws IOException {
    store = new FlippingPageStore(ChroniclePageStore.openTemporary(256 << 20));
    pages = new PageService(store);
    Path socket = directory.resolve("tier");
    Path directSocket = directory.resolve("direct");
    direct = DirectServer.start(pages, EndpointConfig.LOOPBACK, 0, Optional.of(directSocket));
    directWire = new FlippingProxy(direct.port());
    DirectResponse where =
        DirectResponse.newBuilder()
            .setPort(directWire.port())
            .setSocket(directSocket.toString())
            .build();
    endpoint =
        Endpoint.start(
            EndpointConfig.loopback().withSocket(socket),
            List.of(new PagesGrpcService(pages, where)),
            new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
            Executors.newFixedThreadPool(2),
            PagesGrpcService.BRIEF);
    String target = endpoint.target();
    grpcWire = new FlippingProxy(Integer.parseInt(target.substring(target.indexOf(':') + 1)));
  }

  @AfterEach
  void stop() throws IOException {
    directWire.close();
    grpcWire.close();
    direct.close();
    endpoint.close();
    store.close();
  }

  private PagesClient client(Way way) {
    return switch (way) {
      case GRPC_TCP -> grpcClient();
      case GRPC_UNIX ->
          new PagesClient(endpoint.socketTarget().orElseThrow(), DEADLINE, Option.GRPC_ONLY);
      case DIRECT_TCP -> new PagesClient(endpoint.target(), DEADLINE);
      case DIRECT_UNIX -> new PagesClient(endpoint.socketTarget().orElseThrow(), DEADLINE);
    };
  }

  private PagesClient grpcClient(Option... more) {
    Option[] options = Arrays.copyOf(more, more.length + 1);
    options[more.length] = Option.GRPC_ONLY;
    try {
      return new PagesClient("127.0.0.1:" + grpcWire.port(), DEADLINE, options);
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  private static PageKey keyOf(int index, PageLayout layout) {
    return key(1, index, 0, layout);
  }

  private static List<KeyedPage> keyed(int count, PageLayout layout) {
    List<KeyedPage> keyed = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      keyed.add(new KeyedPage(keyOf(i, layout), bytes(layout, i)));
    }
    return keyed;
  }

  private static ByteString bytes(PageLayout layout, int seed) {
    return ByteString.copyFrom(page(layout, 0, seed).byteArray());
  }

  private static List<PageKey> keys(int count, PageLayout layout) {
    return keyed(count, layout).stream().map(KeyedPage::key).toList();
  }

  private void requireWay(Way way) {
    assertThat(direct.connections() > 0).isEqualTo(way.name().startsWith("DIRECT"));
  }

  @ParameterizedTest
  @EnumSource
  void pagesComeBackAsTheyWent(Way way) {
    try (PagesClient client = client(way)) {
      client.put(keyed(1500, ROT4));
      client.put(keyed(40, LARGE));
      int[] next = {0};
      client.read(
          keys(1500, ROT4),
          (bytes, offset, length, index) -> {
            byte[] page = new byte[length];
            bytes.getBytes(offset, page);
            assertThat(index).isEqualTo(next[0]++);
            assertThat(page).isEqualTo(page(ROT4, 0, index).byteArray());
          });
      assertThat(next[0]).isEqualTo(1500);
      client.get(keys(40, LARGE), (page, index) -> assertThat(page).isEqualTo(bytes(LARGE, index)));
      List<PageKey> asked = keys(1600, ROT4).subList(1400, 1600);
      assertThat(client.contains(asked)).isEqualTo(bits(0, 100));
      client.delete(keys(1450, ROT4));
      assertThat(client.contains(asked)).isEqualTo(bits(50, 100));
      client.put(List.of());
      client.read(List.of(), (bytes, offset, length, index) -> assertThat(index).isNegative());
      requireWay(way);
    }
    assertThat(pages.counts().putsStored()).isEqualTo(1540);
  }

  private static BitSet bits(int from, int to) {
    BitSet bits = new BitSet();
    bits.set(from, to);
    return bits;
  }

  @ParameterizedTest
  @EnumSource
  void sectionsComeByHeadThenById(Way way) {
    try (PagesClient client = client(way)) {
      client.put(keyed(60, LARGE));
      int[] next = {0};
      client.readSections(
          wanted(60, LARGE),
          (bytes, offset, length, index) -> {
            byte[] got = new byte[length];
            bytes.getBytes(offset, got);
            assertThat(index).isEqualTo(next[0]++);
            assertThat(got).isEqualTo(section(LARGE, index, 1));
          });
      assertThat(next[0]).isEqualTo(60);
      requireWay(way);
    }
  }

  private static List<SectionsOf> wanted(int count, PageLayout layout) {
    return keys(count, layout).stream()
        .map(key ->
            SectionsOf.newBuilder()
                .setKey(key.toByteString())
                .setHeadsLow(1 << 1)
                .setSections(layout.sections())
                .build())
        .toList();
  }

  private static byte[] section(PageLayout layout, int seed, int head) {
    byte[] page = page(layout, 0, seed).byteArray();
    ByteString data = ByteString.EMPTY;
    for (int id = 0; id < Section.count(); id++) {
      if ((layout.sections() & 1 << id) != 0) {
        int at = layout.offset(head, Section.ofId(id));
        data = data.concat(ByteString.copyFrom(page, at, layout.length(Section.ofId(id))));
      }
    }
    return data.toByteArray();
  }

  @ParameterizedTest
  @EnumSource
  void aMissIsLostAndTheClientGoesOn(Way way) {
    try (PagesClient client = client(way)) {
      client.put(keyed(5, ROT4));
      store.flip(keyOf(3, ROT4), ROT4.offset(1, Section.V_CODES));
      List<Integer> given = new ArrayList<>();
      assertCode(
          Code.LOST, () -> client.read(keys(5, ROT4), (bytes, offset, length, i) -> given.add(i)));
      assertThat(given).containsExactly(0, 1, 2);
      assertCode(Code.LOST, () -> client.readSections(wanted(9, ROT4), (b, o, l, i) -> {}));
      client.read(keys(3, ROT4), (bytes, offset, length, i) -> given.add(i));
      assertThat(given).containsExactly(0, 1, 2, 0, 1, 2);
    }
  }

  @ParameterizedTest
  @EnumSource
  void aRefusedPutSaysWhyAndStoresNothingAfterIt(Way way) {
    try (PagesClient client = client(way)) {
      List<KeyedPage> keyed = keyed(10, ROT4);
      byte[] flawed = keyed.get(4).page().toByteArray();
      flawed[flawed.length - 100] ^= 4;
      keyed.set(4, new KeyedPage(keyOf(4, ROT4), ByteString.copyFrom(flawed)));
      KvtierException e = assertCode(Code.INVALID, () -> client.put(keyed));
      assertThat(e).hasMessageContaining("SECTION_CHECKSUM");
      assertThat(client.contains(keys(10, ROT4))).isEqualTo(bits(0, 4));
      ByteString oversize = ByteString.copyFrom(new byte[(16 << 20) + 1]);
      assertThat(
              assertCode(
                  Code.INVALID, () -> client.put(List.of(new KeyedPage(keyOf(1, ROT4), oversize)))))
          .hasMessageContaining("page length is 16777217; it must be 1..16777216");
    }
  }

  @ParameterizedTest
  @EnumSource
  void aConsumersExceptionIsItsOwn(Way way) {
    try (PagesClient client = client(way)) {
      client.put(keyed(200, LARGE));
      IllegalStateException thrown = new IllegalStateException("the consumer's");
      for (int i = 0; i < 20; i++) {
        assertThatThrownBy(() ->
                client.read(
                    keys(200, LARGE),
                    (bytes, offset, length, index) -> {
                      if (index == 3) {
                        throw thrown;
                      }
                    }))
            .isSameAs(thrown);
      }
      client.read(keys(200, LARGE), (bytes, offset, length, index) -> {});
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"GRPC_TCP", "DIRECT_TCP"})
  void aByteFlippedOnTheWireIsSeen(Way way) {
    FlippingProxy wire = way == Way.GRPC_TCP ? grpcWire : directWire;
    try (PagesClient client = client(way)) {
      client.put(keyed(2, LARGE));
      client.read(keys(2, LARGE), (bytes, offset, length, index) -> {});
      // Well inside the first page: past the frames' headers, before the last section's end.
      wire.flipAfter(LARGE.pageLength() / 2);
      KvtierException e =
          assertCode(
              Code.LOST, () -> client.read(keys(2, LARGE), (bytes, offset, length, index) -> {}));
      assertThat(wire.flipped()).isTrue();
      assertThat(e).hasMessageContaining("did not come whole").hasMessageContaining("CHECKSUM");
      client.read(keys(2, LARGE), (bytes, offset, length, index) -> {});
      wire.flipAfter(LARGE.pageLength() / 16);
      assertThat(
              assertCode(
                  Code.LOST, () -> client.readSections(wanted(2, LARGE), (b, o, l, i) -> {})))
          .hasMessageContaining("did not come whole");
      assertThat(wire.flipped()).isTrue();
    }
    assertThat(pages.counts().missesCorrupt()).isZero();
  }

  @ParameterizedTest
  @EnumSource(names = {"DIRECT_TCP", "DIRECT_UNIX"})
  void withoutItsDirectPathATierServesOverGrpc(Way way) {
    try (PagesClient client = client(way)) {
      client.put(keyed(10, ROT4));
      direct.close();
      List<Integer> given = new ArrayList<>();
      for (int i = 0; i < 3; i++) {
        client.read(keys(10, ROT4), (bytes, offset, length, index) -> given.add(index));
        client.put(keyed(10, ROT4));
        assertThat(client.contains(keys(10, ROT4))).isEqualTo(bits(0, 10));
      }
      assertThat(given).hasSize(30);
    }
  }

  /** A direct path that takes requests and answers nothing. */
  @Test
  void noCallOutlastsItsDeadlineOrAnInterrupt() throws IOException {
    try (ServerSocketChannel silent = ServerSocketChannel.open()) {
      silent.bind(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
      int port = ((InetSocketAddress) silent.getLocalAddress()).getPort();
      Thread.ofPlatform().daemon().start(() -> greetOnly(silent));
      DirectResponse where = DirectResponse.newBuilder().setPort(port).build();
      try (Endpoint other =
          Endpoint.start(
              EndpointConfig.loopback(),
              List.of(new PagesGrpcService(pages, where)),
              new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
              Executors.newFixedThreadPool(2),
              PagesGrpcService.BRIEF)) {
        try (PagesClient client = new PagesClient(other.target(), Duration.ofMillis(500))) {
          assertCode(Code.DEADLINE, () -> client.contains(keys(1, ROT4)));
          assertCode(Code.DEADLINE, () -> client.put(keyed(1, ROT4)));
        }
        try (PagesClient client = new PagesClient(other.target(), DEADLINE)) {
          Thread caller = Thread.currentThread();
          Thread.ofPlatform().daemon().start(() -> interruptOnceItReads(caller));
          assertCode(Code.UNAVAILABLE, () -> client.contains(keys(1, ROT4)));
          assertThat(Thread.interrupted()).isTrue();
        }
      }
    }
  }

  private static void greetOnly(ServerSocketChannel listener) {
    try {
      while (true) {
        FrameChannel channel = new FrameChannel(listener.accept(), 1 << 20);
        channel.awaitGreeting();
        channel.greet();
      }
    } catch (IOException closed) {
      // The test is over.
    }
  }

  private static void interruptOnceItReads(Thread caller) {
    while (Arrays.stream(caller.getStackTrace())
        .noneMatch(frame -> frame.getMethodName().equals("nextFrame"))) {
      Thread.onSpinWait();
    }
    caller.interrupt();
  }

  private static KvtierException assertCode(Code code, ThrowingCallable call) {
    KvtierException e = catchThrowableOfType(KvtierException.class, call);
    assertThat(e).isNotNull();
    assertThat(e.code()).as("%s", e.getMessage()).isEqualTo(code);
    return e;
  }
}
