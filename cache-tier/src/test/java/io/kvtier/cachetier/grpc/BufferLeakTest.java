package io.kvtier.cachetier.grpc;

import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.client.PagesClient;
import io.kvtier.client.PagesClient.Option;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.PooledByteBufAllocator;
import io.netty.util.ResourceLeakDetector;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executors;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * Netty's leak detector, at its strictest, over calls that end well and calls that do not. A buffer
 * dropped on purpose at the end shows that it looks.
 */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class BufferLeakTest {
  private static final PageLayout LAYOUT = TestPages.raw16(8, 128);
  private static final String PLANTED = "dropped on purpose";

  private final Queue<String> reports = new ConcurrentLinkedQueue<>();
  private final Logger log = Logger.getLogger(ResourceLeakDetector.class.getName());
  private final Handler recorder =
      new Handler() {
        @Override
        public void publish(LogRecord entry) {
          reports.add(entry.getMessage());
        }

        @Override
        public void flush() {}

        @Override
        public void close() {}
      };

  @BeforeEach
  void watch() {
    ResourceLeakDetector.setLevel(ResourceLeakDetector.Level.PARANOID);
    log.addHandler(recorder);
    log.setUseParentHandlers(false);
  }

  @AfterEach
  void forget() {
    ResourceLeakDetector.setLevel(ResourceLeakDetector.Level.SIMPLE);
    log.removeHandler(recorder);
    log.setUseParentHandlers(true);
  }

  @Test
  void everyBufferIsGivenBack() {
    try (ChroniclePageStore store = ChroniclePageStore.openTemporary(64 << 20)) {
      PageService pages = new PageService(store);
      try (Endpoint endpoint =
              Endpoint.start(
                  EndpointConfig.loopback(),
                  List.of(new PagesGrpcService(pages)),
                  new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
                  Executors.newFixedThreadPool(2),
                  PagesGrpcService.BRIEF);
          PagesClient client =
              new PagesClient(endpoint.target(), Duration.ofSeconds(30), Option.GRPC_ONLY)) {
        traffic(client);
      }
    }
    dropOne();
    while (reports.stream().noneMatch(report -> report.contains(PLANTED))) {
      System.gc();
      PooledByteBufAllocator.DEFAULT.directBuffer(16).release();
    }
    assertThat(reports).allSatisfy(report -> assertThat(report).contains(PLANTED));
  }

  private static void traffic(PagesClient client) {
    List<KeyedPage> keyed = new ArrayList<>();
    for (int i = 0; i < 64; i++) {
      keyed.add(new KeyedPage(keyOf(i), ByteString.copyFrom(page(LAYOUT, 0, i).byteArray())));
    }
    client.put(keyed);
    List<PageKey> keys = keyed.stream().map(KeyedPage::key).toList();
    List<PageKey> withAbsent = new ArrayList<>(keys);
    withAbsent.add(20, keyOf(1000));
    List<KeyedPage> withFlawed = new ArrayList<>(keyed);
    withFlawed.add(20, new KeyedPage(keyOf(1001), keyed.getFirst().page().substring(1)));
    for (int i = 0; i < 10; i++) {
      client.read(keys, (bytes, offset, length, index) -> {});
      assertThatThrownBy(() -> client.read(withAbsent, (bytes, offset, length, index) -> {}))
          .isInstanceOf(KvtierException.class);
      assertThatThrownBy(() -> client.put(withFlawed)).isInstanceOf(KvtierException.class);
      assertThatThrownBy(() ->
              client.read(
                  keys,
                  (bytes, offset, length, index) -> {
                    throw new IllegalStateException("given up");
                  }))
          .isInstanceOf(IllegalStateException.class);
    }
  }

  private static PageKey keyOf(int index) {
    return key(1, index, 0, LAYOUT);
  }

  private static void dropOne() {
    ByteBuf dropped = PooledByteBufAllocator.DEFAULT.directBuffer(64);
    dropped.touch(PLANTED);
  }
}
