package io.kvtier.cachetier;

import static io.kvtier.cachetier.TestPages.ROT4;
import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.TenantName;
import io.kvtier.cachetier.cache.CacheLimits;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.client.PagesClient;
import io.kvtier.client.PagesClient.Option;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** A client on the tier's host, which reads the tier's files, beside one that does not. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class LocalReadsTest {
  private static final int PAGES = 40;
  private static final PageLayout WIDE = TestPages.raw16(70, 16);

  @TempDir Path data;

  private CacheTier start(EndpointConfig endpoint, DirectConfig direct) {
    return start(endpoint, direct, CacheLimits.keeping(), Verification.TIER);
  }

  private CacheTier start(
      EndpointConfig endpoint, DirectConfig direct, CacheLimits limits, Verification verifies) {
    return CacheTier.start(
        new CacheTierConfig(
            endpoint,
            32 << 20,
            Optional.of(data),
            false,
            limits,
            LeaseLimits.defaults(),
            0,
            verifies,
            direct));
  }

  private CacheTier start() {
    return start(EndpointConfig.loopback(), DirectConfig.defaults());
  }

  private static PagesClient client(CacheTier tier, Option... options) {
    return new PagesClient(tier.target(), Duration.ofSeconds(20), options);
  }

  private static PageKey keyOf(int index, PageLayout layout) {
    return key(1, index, 0, layout);
  }

  private static List<KeyedPage> pages(PageLayout layout) {
    List<KeyedPage> pages = new ArrayList<>();
    for (int i = 0; i < PAGES; i++) {
      pages.add(
          new KeyedPage(keyOf(i, layout), ByteString.copyFrom(page(layout, 0, i).byteArray())));
    }
    return pages;
  }

  private static List<PageKey> keys(PageLayout layout) {
    return pages(layout).stream().map(KeyedPage::key).toList();
  }

  private static List<ByteString> all(PagesClient client, PageLayout layout) {
    List<ByteString> read = new ArrayList<>();
    client.get(
        keys(layout),
        (page, index) -> {
          assertThat(index).isEqualTo(read.size() % PAGES);
          read.add(page);
        });
    long high = layout.kvHeads() > 64 ? 1L << 5 : 0;
    List<SectionsOf> sections = new ArrayList<>();
    List<RowsOf> rows = new ArrayList<>();
    int set = layout.sections() & ~Section.set(Section.K_MEAN, Section.V_MEAN);
    for (PageKey key : keys(layout)) {
      sections.add(
          SectionsOf.newBuilder()
              .setKey(key.toByteString())
              .setHeadsLow(0b11)
              .setHeadsHigh(high)
              .setSections(layout.sections())
              .build());
      RowsOf.Builder row =
          RowsOf.newBuilder()
              .setKey(key.toByteString())
              .setHeadsLow(0b11)
              .setHeadsHigh(high)
              .setSections(set)
              .addTokens(0x8000_0000_0000_0001L)
              .addTokens(6);
      rows.add(high == 0 ? row.build() : row.addTokens(1).build());
    }
    client.getSections(sections, (data, index) -> read.add(data));
    client.readRows(
        layout,
        rows,
        (bytes, offset, length, index) -> {
          byte[] copy = new byte[length];
          bytes.getBytes(offset, copy);
          read.add(ByteString.copyFrom(copy));
        });
    assertThat(read).hasSize(3 * PAGES);
    return read;
  }

  @Test
  void whatIsReadInTheFilesIsWhatComesOverTheWire() {
    try (CacheTier tier = start();
        PagesClient near = client(tier);
        PagesClient far = client(tier, Option.WIRE_ONLY);
        PagesClient grpc = client(tier, Option.GRPC_ONLY)) {
      for (PageLayout layout : List.of(ROT4, WIDE)) {
        near.put(pages(layout));
        List<ByteString> wire = all(far, layout);
        assertThat(wire.subList(0, PAGES))
            .isEqualTo(pages(layout).stream().map(KeyedPage::page).toList());
        // A length that the client has not seen yet may be found a second later.
        List<ByteString> files = all(near, layout);
        assertThat(files).isEqualTo(wire);
        assertThat(all(grpc, layout)).isEqualTo(wire);
      }
      assertThat(near.localReads()).isGreaterThanOrEqualTo(3 * PAGES);
      assertThat(far.localReads()).isZero();
      assertThat(grpc.localReads()).isZero();
      near.delete(keys(ROT4).subList(7, 9));
      List<Integer> given = new ArrayList<>();
      refused(Code.LOST, () -> near.get(keys(ROT4), (page, index) -> given.add(index)));
      assertThat(given).containsExactly(0, 1, 2, 3, 4, 5, 6);
      SectionsOf beyond =
          SectionsOf.newBuilder()
              .setKey(keyOf(1, ROT4).toByteString())
              .setHeadsLow(4)
              .setSections(1)
              .build();
      refused(Code.INVALID, () -> near.getSections(List.of(beyond), (page, index) -> {}));
    }
  }

  /** Of pages stored together those stay that are read in the files, as if the tier had served. */
  @Test
  void whatIsReadInTheFilesCountsAndOutlastsWhatIsNot() throws Exception {
    try (CacheTier tier =
            start(
                EndpointConfig.loopback(),
                DirectConfig.defaults(),
                CacheLimits.none(),
                Verification.TIER);
        PagesClient near = client(tier)) {
      near.put(pages(ROT4));
      List<PageKey> read = keys(ROT4).subList(0, 5);
      while (near.localReads() < 10) {
        // A length that the client has not seen yet may be found a second later.
        near.read(read, (bytes, offset, length, index) -> {});
      }
      while (metric(tier, "kvtier_tier_file_hits_pages_total") < 10) {
        Thread.onSpinWait();
      }
      assertThat(metric(tier, "kvtier_tier_file_out_bytes_total"))
          .isEqualTo(metric(tier, "kvtier_tier_file_hits_pages_total") * ROT4.pageLength());
      int more = (int) (tier.bytesMax() / ROT4.pageLength());
      for (int i = PAGES; i < PAGES + more; i++) {
        ByteString page = ByteString.copyFrom(page(ROT4, 0, i).byteArray());
        near.put(List.of(new KeyedPage(keyOf(i, ROT4), page)));
      }
      assertThat(near.contains(keys(ROT4)).stream()).containsExactly(0, 1, 2, 3, 4);
    }
  }

  private static double metric(CacheTier tier, String name) throws Exception {
    try (HttpClient http = HttpClient.newHttpClient()) {
      String body =
          http.send(
                  HttpRequest.newBuilder(URI.create(tier.opsUrl() + "/metrics")).build(),
                  HttpResponse.BodyHandlers.ofString())
              .body();
      return body.lines()
          .filter(line -> line.startsWith(name + " "))
          .mapToDouble(line -> Double.parseDouble(line.substring(name.length() + 1)))
          .findFirst()
          .orElseThrow(() -> new AssertionError(name + " is not among\n" + body));
    }
  }

  private static void refused(Code code, Runnable call) {
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(KvtierException.class, e -> assertThat(e.code()).isEqualTo(code));
  }

  @ParameterizedTest
  @EnumSource
  void aByteFlippedInTheFileIsNeverServed(Verification verifies) throws IOException {
    try (CacheTier tier =
            start(
                EndpointConfig.loopback(),
                DirectConfig.defaults(),
                CacheLimits.keeping(),
                verifies);
        PagesClient near = client(tier)) {
      near.put(pages(ROT4));
      all(near, ROT4);
      assertThat(near.localReads()).isEqualTo(3 * PAGES);
      flip(page(ROT4, 0, 5).byteArray());
      List<Integer> given = new ArrayList<>();
      refused(Code.LOST, () -> near.get(keys(ROT4), (page, index) -> given.add(index)));
      assertThat(given).containsExactly(0, 1, 2, 3, 4);
      // The tier has looked at it and removed it; where readers verify, once this one has told.
      long left = (PAGES - 1L) * ROT4.pageLength();
      while (verifies == Verification.READER && tier.bytesUsed() != left) {
        Thread.onSpinWait();
      }
      assertThat(tier.bytesUsed()).isEqualTo(left);
    }
  }

  /** Flips a bit of the page's copy in the file. */
  private void flip(byte[] page) throws IOException {
    Path file = data.resolve("pages-" + page.length + ".map");
    try (FileChannel channel =
        FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
      byte[] all = new byte[(int) channel.size()];
      channel.read(ByteBuffer.wrap(all));
      for (int at = 0; at <= all.length - page.length; at++) {
        if (Arrays.equals(all, at, at + page.length, page, 0, page.length)) {
          int place = at + ROT4.offset(1, Section.V_CODES) + 3;
          channel.write(ByteBuffer.wrap(new byte[] {(byte) (all[place] ^ 4)}), place);
          return;
        }
      }
    }
    throw new AssertionError("the page is not in its file");
  }

  @Test
  void aTierThatHasBeenStartedAgainIsReadInItsNewFiles() {
    EndpointConfig endpoint;
    try (CacheTier tier = start()) {
      String target = tier.target();
      int port = Integer.parseInt(target.substring(target.lastIndexOf(':') + 1));
      endpoint = new EndpointConfig(EndpointConfig.LOOPBACK, port, 0, Optional.empty());
    }
    PagesClient near = new PagesClient("127.0.0.1:" + endpoint.port(), Duration.ofSeconds(20));
    try (near) {
      List<ByteString> first;
      try (CacheTier tier = start(endpoint, DirectConfig.defaults())) {
        near.put(pages(ROT4));
        first = all(near, ROT4);
        assertThat(tier.bytesUsed()).isPositive();
        assertThat(near.localReads()).isEqualTo(3 * PAGES);
      }
      refused(Code.UNAVAILABLE, () -> all(near, ROT4));
      try (CacheTier tier = start(endpoint, DirectConfig.defaults())) {
        // After a failure it connects again, and goes over gRPC, in a second or two.
        while (near.localReads() == 0) {
          assertThat(allOrNone(near)).isIn(List.of(), first);
        }
        assertThat(tier.bytesUsed()).isPositive();
      }
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"WIRE_ONLY", "GRPC_ONLY"})
  void putsAreChargedToThePagesTenants(Option way) {
    CacheLimits limits =
        new CacheLimits(Optional.empty(), Long.MAX_VALUE, Map.of("small", 16L << 20), false);
    PageLayout layout = TestPages.raw16(8, 128);
    try (CacheTier tier =
            start(EndpointConfig.loopback(), DirectConfig.defaults(), limits, Verification.TIER);
        PagesClient client = client(tier, way)) {
      int quota = (16 << 20) / layout.pageLength();
      for (int i = 0; i < quota; i++) {
        // In one call, so that the tenants change on the way.
        client.put(
            List.of(keyed(2 * i, layout, TenantName.DEFAULT), keyed(2 * i + 1, layout, "small")));
      }
      KeyedPage more = keyed(2 * quota, layout, "small");
      assertThatThrownBy(() -> client.put(List.of(more)))
          .isInstanceOf(KvtierException.class)
          .hasMessageContaining("tenant 'small' is full");
      client.put(List.of(keyed(2 * quota, layout, TenantName.DEFAULT)));
    }
  }

  private static KeyedPage keyed(int index, PageLayout layout, String tenant) {
    ByteString page = ByteString.copyFrom(page(layout, 0, index).byteArray());
    return new KeyedPage(keyOf(index, layout), page, tenant);
  }

  private static List<ByteString> allOrNone(PagesClient client) {
    try {
      return all(client, ROT4);
    } catch (KvtierException e) {
      assertThat(e.code()).isEqualTo(Code.UNAVAILABLE);
      return List.of();
    }
  }

  @Test
  void whoIsToldOfNoFilesReadsNone() {
    try (CacheTier tier = start(EndpointConfig.loopback(), new DirectConfig(false, 0, false));
        PagesClient client = client(tier)) {
      client.put(pages(ROT4));
      assertThat(all(client, ROT4)).hasSize(3 * PAGES);
      assertThat(client.localReads()).isZero();
    }
  }
}
