package io.kvtier.cachetier.grpc;

import static io.kvtier.cachetier.TestPages.MODEL;
import static io.kvtier.cachetier.TestPages.ROT4;
import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.FlippingPageStore;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.cachetier.memory.MemoryPageStore;
import io.kvtier.client.PagesClient;
import io.kvtier.client.PagesClient.Option;
import io.kvtier.page.Codec;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.page.Section;
import io.kvtier.page.TokenRows;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.DirectResponse;
import io.kvtier.v1.RowsOf;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.concurrent.Executors;
import java.util.function.Consumer;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Rows over both stores and every way to the client, beside those of the whole pages. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
@ParameterizedClass
@EnumSource
final class PageRowsTest {
  private static final Duration DEADLINE = Duration.ofSeconds(30);
  private static final List<PageLayout> LAYOUTS =
      List.of(
          ROT4,
          TestPages.raw16(8, 128),
          new PageLayout(Codec.ROT3, Codec.ROT2, 70, 16),
          new PageLayout(Codec.AFFINE4, Codec.ROT4, 3, 80));

  @TempDir Path directory;

  private final FlippingPageStore store;
  private final PageService pages;
  private final DirectServer direct;
  private final FlippingProxy directWire;
  private final FlippingProxy grpcWire;
  private final Endpoint endpoint;
  private final SplittableRandom random;

  enum Stored {
    MAPPED,
    MEMORY
  }

  enum Way {
    GRPC_TCP,
    DIRECT_TCP
  }

  PageRowsTest(Stored stored) throws IOException {
    long seed = System.nanoTime();
    System.out.println("PageRowsTest seed " + seed);
    random = new SplittableRandom(seed);
    PageStore inner =
        stored == Stored.MAPPED
            ? ChroniclePageStore.openTemporary(64 << 20)
            : new MemoryPageStore(64 << 20);
    store = new FlippingPageStore(inner);
    pages = new PageService(store);
    direct = DirectServer.start(pages, EndpointConfig.LOOPBACK, 0, Optional.empty());
    directWire = new FlippingProxy(direct.port());
    endpoint =
        Endpoint.start(
            EndpointConfig.loopback(),
            List.of(
                new PagesGrpcService(
                    pages, DirectResponse.newBuilder().setPort(directWire.port()).build())),
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

  private PagesClient client(Way way) throws IOException {
    return way == Way.DIRECT_TCP
        ? new PagesClient(endpoint.target(), DEADLINE)
        : new PagesClient("127.0.0.1:" + grpcWire.port(), DEADLINE, Option.GRPC_ONLY);
  }

  private static PageKey keyOf(int index, PageLayout layout) {
    return key(1, index, 0, layout);
  }

  private void put(int count, PageLayout layout, int tokens) {
    for (int i = 0; i < count; i++) {
      UnsafeBuffer page = page(layout, 0, i);
      Pages.seal(page, 0, layout, new PageIdentity(MODEL, 0, 64 * i, tokens));
      pages.put(keyOf(i, layout), page, 0, page.capacity());
    }
  }

  private long randomTokens(int pageTokens) {
    long all = -1L >>> (TOKENS - pageTokens);
    long tokens = all;
    for (int halving = 0; halving < 3; halving++) {
      tokens &= random.nextLong();
    }
    return tokens == 0 ? 1L << random.nextInt(pageTokens) : tokens;
  }

  private RowsOf randomRows(PageKey key, PageLayout layout, int pageTokens) {
    int set = TokenRows.ofTokens(layout.sections());
    int sections = set & random.nextInt();
    RowsOf.Builder rows =
        RowsOf.newBuilder().setKey(key.toByteString()).setSections(sections == 0 ? set : sections);
    while ((rows.getHeadsLow() | rows.getHeadsHigh()) == 0) {
      for (int head = 0; head < layout.kvHeads(); head++) {
        if (random.nextInt(3) == 0) {
          rows.setHeadsLow(rows.getHeadsLow() | (head < 64 ? 1L << head : 0));
          rows.setHeadsHigh(rows.getHeadsHigh() | (head < 64 ? 0 : 1L << head));
          rows.addTokens(randomTokens(pageTokens));
        }
      }
    }
    return rows.build();
  }

  /** What FORMAT.md calls a row, written out once more. */
  private static byte[] rowsOf(byte[] page, PageLayout layout, RowsOf wanted) {
    ByteArrayOutputStream rows = new ByteArrayOutputStream();
    int next = 0;
    for (int head = 0; head < layout.kvHeads(); head++) {
      long heads = head < 64 ? wanted.getHeadsLow() : wanted.getHeadsHigh();
      if ((heads >>> head & 1) == 0) {
        continue;
      }
      long tokens = wanted.getTokens(next++);
      for (int token = 0; token < TOKENS; token++) {
        for (int id = 0; (tokens >>> token & 1) != 0 && id < Section.count(); id++) {
          if ((wanted.getSections() >>> id & 1) != 0) {
            int at = layout.offset(head, Section.ofId(id));
            int share = layout.length(Section.ofId(id)) / TOKENS;
            boolean plane = id <= Section.K_FINE.id();
            for (int i = 0; i < share; i++) {
              rows.write(page[plane ? at + i * TOKENS + token : at + token * share + i]);
            }
          }
        }
      }
    }
    return rows.toByteArray();
  }

  @ParameterizedTest
  @EnumSource
  void rowsAreThoseOfTheWholePage(Way way) throws IOException {
    try (PagesClient client = client(way)) {
      for (PageLayout layout : LAYOUTS) {
        int pageTokens = layout.equals(ROT4) ? TOKENS : random.nextInt(1, TOKENS + 1);
        put(30, layout, pageTokens);
        List<PageKey> keys = new ArrayList<>();
        List<RowsOf> wanted = new ArrayList<>();
        for (int i = 0; i < 1100; i++) {
          keys.add(keyOf(random.nextInt(30), layout));
          wanted.add(randomRows(keys.getLast(), layout, pageTokens));
        }
        List<byte[]> expected = new ArrayList<>();
        client.get(
            keys,
            (page, index) -> expected.add(rowsOf(page.toByteArray(), layout, wanted.get(index))));
        int[] next = {0};
        long bytesBefore = pages.counts().bytesOut();
        client.readRows(
            layout,
            wanted,
            (bytes, offset, length, index) -> {
              byte[] rows = new byte[length];
              bytes.getBytes(offset, rows);
              assertThat(index).isEqualTo(next[0]++);
              assertThat(rows).isEqualTo(expected.get(index));
            });
        assertThat(next[0]).isEqualTo(wanted.size());
        assertThat(pages.counts().bytesOut() - bytesBefore)
            .isEqualTo(expected.stream().mapToLong(rows -> rows.length).sum());
      }
      assertThat(direct.connections() > 0).isEqualTo(way == Way.DIRECT_TCP);
    }
  }

  private static RowsOf.Builder right() {
    return RowsOf.newBuilder()
        .setKey(keyOf(1, ROT4).toByteString())
        .setHeadsLow(0b11)
        .setSections(Section.set(Section.K_SIGN, Section.V_CODES))
        .addTokens(1)
        .addTokens(0x8001);
  }

  private static List<byte[]> read(PagesClient client, RowsOf... wanted) {
    List<byte[]> read = new ArrayList<>();
    client.readRows(
        ROT4,
        List.of(wanted),
        (bytes, offset, length, index) -> {
          byte[] rows = new byte[length];
          bytes.getBytes(offset, rows);
          read.add(rows);
        });
    return read;
  }

  @ParameterizedTest
  @EnumSource
  void rowsOfAFlawedSectionAreAMissAndOthersAreServed(Way way) throws IOException {
    try (PagesClient client = client(way)) {
      put(3, ROT4, TOKENS);
      store.flip(keyOf(1, ROT4), ROT4.offset(1, Section.V_SCALES) + 2);
      assertThat(read(client, right().build())).hasSize(1);
      store.flip(keyOf(1, ROT4), ROT4.offset(1, Section.V_CODES) + 1);
      // Not one of the tokens asked: the section's checksum is all that vouches for the others.
      assertCode(Code.LOST, () -> read(client, right().build()));
      assertThat(pages.counts().missesCorrupt()).isEqualTo(1);
      assertThat(store.pages()).isEqualTo(2);
      RowsOf next = right().setKey(keyOf(2, ROT4).toByteString()).build();
      List<byte[]> given = new ArrayList<>();
      assertCode(Code.LOST, () -> given.addAll(read(client, next, right().build(), next)));
      assertThat(pages.counts().missesAbsent()).isEqualTo(1);
      assertThat(read(client, next)).hasSize(1);
    }
  }

  @ParameterizedTest
  @EnumSource
  void aByteFlippedOnTheWireIsSeen(Way way) throws IOException {
    FlippingProxy wire = way == Way.GRPC_TCP ? grpcWire : directWire;
    try (PagesClient client = client(way)) {
      put(30, ROT4, TOKENS);
      RowsOf[] wanted = new RowsOf[30];
      Arrays.setAll(
          wanted, i -> right().setKey(keyOf(i, ROT4).toByteString()).setTokens(0, -1).build());
      assertThat(read(client, wanted)).hasSize(30);
      wire.flipAfter(1500);
      assertThat(assertCode(Code.LOST, () -> read(client, wanted)))
          .hasMessageContaining("did not come whole");
      assertThat(wire.flipped()).isTrue();
      assertThat(read(client, wanted)).hasSize(30);
    }
    assertThat(pages.counts().missesCorrupt()).isZero();
  }

  @ParameterizedTest
  @EnumSource
  void whatCannotBeAskedIsRefusedWithItsBound(Way way) throws IOException {
    try (PagesClient client = client(way)) {
      put(2, ROT4, 10);
      PageKey full = key(2, 0, 0, ROT4);
      pages.put(full, page(ROT4, 0, 1), 0, ROT4.pageLength());
      refused(client, b -> b.clearKey(), "pages[1]: page key has 0 bytes; it must have 32");
      refused(client, b -> b.clearHeadsLow(), "heads is an empty set");
      refused(client, b -> b.setHeadsLow(0b101), "heads has head 2; the page has heads 0..1");
      refused(client, b -> b.clearSections(), "sections is an empty set");
      refused(client, b -> b.setSections(1 << 16), "sections is 0x10000; it must be within 0xffff");
      refused(
          client,
          b -> b.setSections(Section.set(Section.K_SIGN, Section.K_MEAN)),
          "pages[1]: sections is 0x11; rows are made of some of 0xfb6f");
      refused(
          client,
          b -> b.setSections(Section.K_RAW.bit()),
          "sections is 0x100; the page has sections 0xff (codecs ROT4, ROT4)");
      refused(
          client,
          b -> b.clearTokens().addTokens(1),
          "tokens has 1 bit sets; it must have one for each of 2 heads");
      refused(client, b -> b.addTokens(1), "tokens has 3 bit sets");
      refused(client, b -> b.setTokens(1, 0), "tokens[1] is an empty set");
      refused(
          client, b -> b.setTokens(1, 1 << 10), "tokens[1] has token 10; the page has tokens 0..9");
      refused(client, b -> b.setTokens(0, -1), "tokens[0] has token 63; the page has tokens 0..9");
      assertThat(read(client, right().setKey(full.toByteString()).setTokens(0, -1).build()))
          .hasSize(1);
      assertThat(pages.counts().missesCorrupt()).isZero();
      assertThat(store.pages()).isEqualTo(3);
    }
  }

  private static void refused(PagesClient client, Consumer<RowsOf.Builder> spoil, String message) {
    RowsOf.Builder good = right().setTokens(1, 3);
    RowsOf.Builder wrong = good.clone();
    spoil.accept(wrong);
    assertThat(assertCode(Code.INVALID, () -> read(client, good.build(), wrong.build())))
        .hasMessageContaining(message);
  }

  private static KvtierException assertCode(Code code, Runnable call) {
    KvtierException[] thrown = new KvtierException[1];
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(
            KvtierException.class,
            e -> {
              thrown[0] = e;
              assertThat(e.code()).as("%s", e.getMessage()).isEqualTo(code);
            });
    return thrown[0];
  }
}
