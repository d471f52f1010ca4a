package io.kvtier.cachetier.grpc;

import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.client.PagesClient;
import io.kvtier.client.PagesClient.Option;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.DirectResponse;
import io.kvtier.wire.FrameChannel;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Executors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A client whose kept connection of the direct path finds the tier's buffers taken by others. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class ScarceBuffersTest {
  private static final PageLayout LAYOUT = TestPages.raw16(8, 128);
  private static final PageKey KEY = key(1, 0, 0, LAYOUT);
  private static final Duration DEADLINE = Duration.ofSeconds(30);

  /** Of one connection at its start. */
  private static final long CONNECTION_BYTES = 768 << 10;

  /** The two connections have all of the bound, so that no page can be answered on either. */
  @Test
  void whatTheDirectPathHasNoMemoryForIsReadOverGrpc() throws IOException {
    try (ChroniclePageStore store = ChroniclePageStore.openTemporary(64 << 20)) {
      PageService pages = new PageService(store);
      pages.put(KEY, page(LAYOUT, 0, 0), 0, LAYOUT.pageLength());
      try (DirectServer direct =
              DirectServer.start(
                  pages,
                  EndpointConfig.LOOPBACK,
                  0,
                  Optional.empty(),
                  3,
                  2 * CONNECTION_BYTES,
                  DirectServer.Patience.DEFAULT);
          Endpoint endpoint = grpc(pages, direct.port());
          PagesClient client = new PagesClient(endpoint.target(), DEADLINE, Option.WIRE_ONLY);
          FrameChannel other = connect(direct)) {
        assertThat(client.contains(List.of(KEY)).get(0)).isTrue();
        assertThat(direct.connections()).as("the client's is kept").isEqualTo(2);
        assertThat(direct.bufferBytes()).isEqualTo(2 * CONNECTION_BYTES);
        List<Integer> lengths = new ArrayList<>();
        client.read(List.of(KEY), (bytes, offset, length, index) -> lengths.add(length));
        assertThat(lengths).containsExactly(LAYOUT.pageLength());
        assertThat(other.hasMore()).isFalse();
      }
    }
  }

  private static Endpoint grpc(PageService pages, int directPort) throws IOException {
    DirectResponse where = DirectResponse.newBuilder().setPort(directPort).build();
    return Endpoint.start(
        EndpointConfig.loopback(),
        List.of(new PagesGrpcService(pages, where)),
        new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
        Executors.newFixedThreadPool(2),
        PagesGrpcService.BRIEF);
  }

  private static FrameChannel connect(DirectServer to) throws IOException {
    SocketChannel socket =
        SocketChannel.open(new InetSocketAddress(InetAddress.getLoopbackAddress(), to.port()));
    FrameChannel channel = new FrameChannel(socket, 1 << 20);
    channel.greet();
    channel.awaitGreeting();
    return channel;
  }
}
