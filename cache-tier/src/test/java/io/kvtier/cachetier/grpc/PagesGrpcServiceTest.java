package io.kvtier.cachetier.grpc;

import static io.kvtier.cachetier.TestPages.ROT4;
import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import com.google.common.collect.ImmutableList;
import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.kvtier.cachetier.FlippingPageStore;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.cachetier.near.NearPool;
import io.kvtier.page.PageHeaderFlyweight;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.ContainsRequest;
import io.kvtier.v1.DeleteRequest;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.GetResponse;
import io.kvtier.v1.GetSectionsRequest;
import io.kvtier.v1.GetSectionsResponse;
import io.kvtier.v1.Miss;
import io.kvtier.v1.PageSections;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.PutResponse;
import io.kvtier.v1.SectionsOf;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.agrona.concurrent.UnsafeBuffer;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The service over a real loopback endpoint: what it does, and what it refuses without a trace. */
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class PagesGrpcServiceTest {
  private static final long BYTES_MAX = 64 << 20;
  private static final int LENGTH = ROT4.pageLength();

  private FlippingPageStore store;
  private PageService pages;
  private NearPool near;
  private Endpoint endpoint;
  private ManagedChannel channel;

  @BeforeEach
  void start() {
    store = new FlippingPageStore(ChroniclePageStore.openTemporary(BYTES_MAX));
    pages = new PageService(store);
    near = NearPool.withDefaults(pages);
    endpoint =
        Endpoint.start(
            EndpointConfig.loopback(),
            List.of(new PagesGrpcService(pages, new NearHandler(near))),
            new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
            Executors.newFixedThreadPool(2));
    channel = Channels.open(endpoint.target());
  }

  @AfterEach
  void stop() {
    Channels.close(channel);
    endpoint.close();
    near.close();
    store.close();
  }

  private PagesGrpc.PagesBlockingStub stub() {
    return PagesGrpc.newBlockingStub(channel).withDeadlineAfter(60, TimeUnit.SECONDS);
  }

  private PutCall put() {
    return new PutCall(PagesGrpc.newStub(channel));
  }

  private static PageKey keyOf(int index) {
    return key(1, index, 0, ROT4);
  }

  private static ByteString bytes(UnsafeBuffer page) {
    return UnsafeByteOperations.unsafeWrap(page.byteArray());
  }

  private void putPages(int count) throws InterruptedException {
    PutCall call = put();
    for (int i = 0; i < count; i++) {
      call.send(keyOf(i), page(ROT4, 0, i));
    }
    assertThat(call.end()).isEqualTo(Status.OK);
  }

  private void assertHolds(int count) {
    assertThat(store.pages()).isEqualTo(count);
    assertThat(store.bytesUsed()).isEqualTo((long) count * LENGTH);
  }

  private void assertRefused(Status.Code code, String message, ThrowingCallable call) {
    long stored = store.pages();
    long used = store.bytesUsed();
    StatusRuntimeException e = catchThrowableOfType(StatusRuntimeException.class, call);
    assertThat(e).isNotNull();
    assertStatus(e.getStatus(), code, message);
    assertThat(store.pages()).isEqualTo(stored);
    assertThat(store.bytesUsed()).isEqualTo(used);
  }

  private static void assertStatus(Status status, Status.Code code, String message) {
    assertThat(status.getCode()).as("%s", status).isEqualTo(code);
    assertThat(status.getDescription()).contains(message);
  }

  private static GetRequest getRequest(PageKey... keys) {
    GetRequest.Builder request = GetRequest.newBuilder();
    for (PageKey key : keys) {
      request.addKeys(key.toByteString());
    }
    return request.build();
  }

  private static GetSectionsRequest sectionsRequest(PageKey key, long heads, int sections) {
    return GetSectionsRequest.newBuilder()
        .addPages(
            SectionsOf.newBuilder()
                .setKey(key.toByteString())
                .setHeadsLow(heads)
                .setSections(sections))
        .build();
  }

  @Test
  void everyPutIsAcknowledgedInOrderOnceItIsReadable() throws InterruptedException {
    putPages(100);
    assertHolds(100);
    PutCall again = put();
    for (int i = 150; i-- > 0; ) {
      again.send(keyOf(i), page(ROT4, 0, i));
    }
    assertThat(again.end()).isEqualTo(Status.OK);
    assertThat(again.acks).hasSize(150);
    for (int i = 0; i < 150; i++) {
      PutResponse ack = again.acks.get(i);
      assertThat(ack.getKey()).isEqualTo(keyOf(149 - i).toByteString());
      assertThat(ack.getExisted()).isEqualTo(149 - i < 100);
    }
    assertHolds(150);
  }

  @Test
  void pagesComeInTheOrderOfTheKeysWithTheMisses() throws InterruptedException {
    putPages(3);
    store.flip(keyOf(1), ROT4.offset(0, Section.V_CODES));
    List<GetResponse> got =
        ImmutableList.copyOf(stub().get(getRequest(keyOf(2), keyOf(7), keyOf(1), keyOf(0))));
    assertThat(got)
        .containsExactly(
            GetResponse.newBuilder().setIndex(0).setPage(bytes(page(ROT4, 0, 2))).build(),
            GetResponse.newBuilder().setIndex(1).setMiss(Miss.MISS_ABSENT).build(),
            GetResponse.newBuilder().setIndex(2).setMiss(Miss.MISS_CORRUPT).build(),
            GetResponse.newBuilder().setIndex(3).setPage(bytes(page(ROT4, 0, 0))).build());
    assertThat(pages.counts().missesCorrupt()).isEqualTo(1);
    assertThat(pages.counts().missesAbsent()).isEqualTo(1);
    assertHolds(2);
    assertThat(stub().get(getRequest(keyOf(1))).next().getMiss()).isEqualTo(Miss.MISS_ABSENT);
  }

  @Test
  void sectionsComeByHeadThenById() throws InterruptedException {
    putPages(2);
    int asked = Section.set(Section.V_SCALES, Section.K_SIGN);
    UnsafeBuffer page = page(ROT4, 0, 1);
    ByteString expected = ByteString.EMPTY;
    List<Integer> checksums = new ArrayList<>();
    List<Section> sections = List.of(Section.K_SIGN, Section.V_SCALES);
    for (int head = 0; head < 2; head++) {
      for (Section section : sections) {
        checksums.add(PageHeaderFlyweight.sectionChecksum(page, 0, ROT4.tableIndex(head, section)));
        expected =
            expected.concat(
                bytes(page)
                    .substring(ROT4.offset(head, section))
                    .substring(0, ROT4.length(section)));
      }
    }
    GetSectionsRequest request =
        sectionsRequest(keyOf(1), 0b11, asked).toBuilder()
            .addPages(sectionsRequest(keyOf(9), 1, 1).getPages(0))
            .build();
    assertThat(ImmutableList.copyOf(stub().getSections(request)))
        .containsExactly(
            GetSectionsResponse.newBuilder()
                .addPages(
                    PageSections.newBuilder()
                        .setData(expected)
                        .addAllLengths(sections.stream().map(ROT4::length).toList())
                        .addAllChecksums(checksums))
                .addPages(PageSections.newBuilder().setIndex(1).setMiss(Miss.MISS_ABSENT))
                .build());
    store.flip(keyOf(1), ROT4.offset(1, Section.K_SIGN));
    assertThat(stub().getSections(request).next())
        .isEqualTo(
            GetSectionsResponse.newBuilder()
                .addPages(PageSections.newBuilder().setMiss(Miss.MISS_CORRUPT))
                .addPages(PageSections.newBuilder().setIndex(1).setMiss(Miss.MISS_ABSENT))
                .build());
    assertHolds(1);
  }

  @Test
  void containsAndDeleteAnswerForEachKey() throws InterruptedException {
    putPages(3);
    List<ByteString> keys = new ArrayList<>();
    for (int i = 1; i < 5; i++) {
      keys.add(keyOf(i).toByteString());
    }
    ContainsRequest contains = ContainsRequest.newBuilder().addAllKeys(keys).build();
    DeleteRequest delete = DeleteRequest.newBuilder().addAllKeys(keys).build();
    assertThat(stub().contains(contains).getStoredList()).containsExactly(true, true, false, false);
    assertThat(stub().delete(delete).getDeleted()).isEqualTo(2);
    assertThat(stub().delete(delete).getDeleted()).isZero();
    assertThat(stub().contains(contains).getStoredList()).containsOnly(false);
    assertHolds(1);
  }

  @Test
  void batchesOfKeysAreBounded() throws InterruptedException {
    putPages(1);
    List<ByteString> full = Collections.nCopies(1024, keyOf(0).toByteString());
    assertThat(
            stub().contains(ContainsRequest.newBuilder().addAllKeys(full).build()).getStoredList())
        .hasSize(1024);
    assertThat(stub().get(GetRequest.newBuilder().addAllKeys(full).build()))
        .toIterable()
        .hasSize(1024);
    for (List<ByteString> keys :
        List.of(List.<ByteString>of(), Collections.nCopies(1025, keyOf(0).toByteString()))) {
      String bound = "is %d; it must be 1..1024".formatted(keys.size());
      assertRefused(
          Status.Code.INVALID_ARGUMENT,
          "number of keys " + bound,
          () -> stub().get(GetRequest.newBuilder().addAllKeys(keys).build()).hasNext());
      assertRefused(
          Status.Code.INVALID_ARGUMENT,
          "number of keys " + bound,
          () -> stub().contains(ContainsRequest.newBuilder().addAllKeys(keys).build()));
      assertRefused(
          Status.Code.INVALID_ARGUMENT,
          "number of keys " + bound,
          () -> stub().delete(DeleteRequest.newBuilder().addAllKeys(keys).build()));
      GetSectionsRequest.Builder sections = GetSectionsRequest.newBuilder();
      keys.forEach(key -> sections.addPages(sectionsRequest(keyOf(0), 1, 1).getPages(0)));
      assertRefused(
          Status.Code.INVALID_ARGUMENT,
          "number of pages " + bound,
          () -> stub().getSections(sections.build()).hasNext());
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 31, 33})
  void keysOfAnotherLengthAreRefusedAndNothingOfTheirBatchIsDone(int length)
      throws InterruptedException {
    putPages(2);
    ByteString good = keyOf(0).toByteString();
    ByteString bad = ByteString.copyFrom(new byte[length]);
    String message = "keys[1]: page key has %d bytes; it must have 32".formatted(length);
    List<ByteString> keys = List.of(good, bad);
    assertRefused(
        Status.Code.INVALID_ARGUMENT,
        message,
        () -> stub().get(GetRequest.newBuilder().addAllKeys(keys).build()).hasNext());
    assertRefused(
        Status.Code.INVALID_ARGUMENT,
        message,
        () -> stub().contains(ContainsRequest.newBuilder().addAllKeys(keys).build()));
    assertRefused(
        Status.Code.INVALID_ARGUMENT,
        message,
        () -> stub().delete(DeleteRequest.newBuilder().addAllKeys(keys).build()));
    GetSectionsRequest sections =
        sectionsRequest(keyOf(0), 1, 1).toBuilder()
            .addPages(SectionsOf.newBuilder().setKey(bad).setHeadsLow(1).setSections(1))
            .build();
    assertRefused(
        Status.Code.INVALID_ARGUMENT,
        "pages[1]: page key has %d bytes; it must have 32".formatted(length),
        () -> stub().getSections(sections).hasNext());
    assertThat(pages.counts().hits()).isZero();
    assertPutRefused(Status.Code.INVALID_ARGUMENT, "page key has", bad, bytes(page(ROT4, 0, 5)));
  }

  /** Pages before the bad message stay, the bad one and those after it are not stored. */
  private void assertPutRefused(
      Status.Code code, String message, ByteString badKey, ByteString badPage)
      throws InterruptedException {
    long stored = store.pages();
    int before = 20;
    PutCall call = put();
    for (int i = 0; i < before; i++) {
      call.send(key(77, i, 0, ROT4), page(ROT4, 0, i));
    }
    call.send(badKey, badPage);
    for (int i = before; i < before + 5; i++) {
      call.send(key(77, i, 0, ROT4), page(ROT4, 0, i));
    }
    assertStatus(call.end(), code, message);
    assertThat(store.pages()).isLessThanOrEqualTo(stored + before);
    for (PutResponse ack : call.acks) {
      assertThat(store.contains(PageKey.of(ack.getKey())))
          .as("what was acknowledged stays")
          .isTrue();
    }
    for (int i = before; i < before + 5; i++) {
      assertThat(store.contains(key(77, i, 0, ROT4))).isFalse();
    }
    assertThat(store.bytesUsed()).isEqualTo(store.pages() * LENGTH);
    for (int i = 0; i < before; i++) {
      store.delete(key(77, i, 0, ROT4));
    }
    assertThat(store.pages()).isEqualTo(stored);
  }

  @Test
  void badPagesEndThePutAndAreNotStored() throws InterruptedException {
    putPages(2);
    ByteString key = keyOf(50).toByteString();
    ByteString good = bytes(page(ROT4, 0, 1));
    Status.Code invalid = Status.Code.INVALID_ARGUMENT;
    ByteString garbage = ByteString.copyFrom(TestPages.bytes(1, LENGTH));
    assertPutRefused(invalid, "has a flaw: MAGIC", key, garbage);
    assertPutRefused(invalid, "has a flaw: LENGTH", key, good.substring(0, LENGTH - 1));
    assertPutRefused(invalid, "has a flaw: LENGTH", key, good.concat(good));
    assertPutRefused(invalid, "page length is 0; it must be 1..16777216", key, ByteString.EMPTY);
    assertPutRefused(invalid, "has a flaw: KEY", key(1, 50, 1, ROT4).toByteString(), good);
    PageLayout raw = TestPages.raw16(2, 64);
    assertPutRefused(invalid, "has a flaw: KEY", key(1, 50, 0, raw).toByteString(), good);
    byte[] flipped = good.toByteArray();
    flipped[LENGTH - 65] ^= 1;
    assertPutRefused(
        invalid, "has a flaw: SECTION_CHECKSUM", key, UnsafeByteOperations.unsafeWrap(flipped));
    byte[] long17 = new byte[(16 << 20) + 1];
    assertPutRefused(
        invalid,
        "page length is 16777217; it must be 1..16777216",
        key,
        UnsafeByteOperations.unsafeWrap(long17));
    assertHolds(2);
  }

  @Test
  void oversizedMessagesAreRefused() throws InterruptedException {
    putPages(2);
    ByteString huge = UnsafeByteOperations.unsafeWrap(new byte[Endpoint.MESSAGE_BYTES_MAX + 1]);
    PutCall call = put().send(keyOf(9).toByteString(), huge);
    assertStatus(call.end(), Status.Code.RESOURCE_EXHAUSTED, "");
    assertRefused(
        Status.Code.RESOURCE_EXHAUSTED,
        "",
        () -> stub().get(GetRequest.newBuilder().addKeys(huge).build()).hasNext());
    assertRefused(
        Status.Code.RESOURCE_EXHAUSTED,
        "",
        () -> stub().contains(ContainsRequest.newBuilder().addKeys(huge).build()));
    assertHolds(2);
  }

  @Test
  void sectionsAndHeadsMustExist() throws InterruptedException {
    putPages(1);
    Status.Code invalid = Status.Code.INVALID_ARGUMENT;
    assertRefused(
        invalid,
        "pages[0]: heads is an empty set",
        () -> stub().getSections(sectionsRequest(keyOf(0), 0, 1)).hasNext());
    assertRefused(
        invalid,
        "pages[0]: sections is an empty set",
        () -> stub().getSections(sectionsRequest(keyOf(0), 1, 0)).hasNext());
    assertRefused(
        invalid,
        "pages[0]: sections is 0x10000; it must be within 0xffff",
        () -> stub().getSections(sectionsRequest(keyOf(0), 1, 1 << 16)).hasNext());
    assertRefused(
        invalid,
        "pages[0]: sections is 0x100; the page has sections 0xff",
        () -> stub().getSections(sectionsRequest(keyOf(0), 1, Section.K_RAW.bit())).hasNext());
    assertRefused(
        invalid,
        "pages[0]: heads has head 2; the page has heads 0..1",
        () -> stub().getSections(sectionsRequest(keyOf(0), 0b111, 1)).hasNext());
    assertThat(pages.counts().missesCorrupt()).isZero();
    assertHolds(1);
  }

  @Test
  void aFullTierRefusesAndSaysHowFull() throws InterruptedException {
    PageLayout layout = TestPages.raw16(128, 256);
    int fits = (int) (BYTES_MAX / layout.pageLength());
    PutCall call = put();
    for (int i = 0; i <= fits; i++) {
      call.send(key(1, i, 0, layout), page(layout, 0, i));
    }
    assertStatus(
        call.end(),
        Status.Code.RESOURCE_EXHAUSTED,
        "tier is full: %d of %d bytes; ".formatted((long) fits * layout.pageLength(), BYTES_MAX));
    assertThat(store.pages()).isEqualTo(fits);
  }

  @Test
  void callsOnAClosedStoreAreUnavailable() {
    store.close();
    assertThatThrownBy(() -> stub().get(getRequest(keyOf(0))).hasNext())
        .isInstanceOf(StatusRuntimeException.class)
        .hasMessage("UNAVAILABLE: the page store is closed");
  }
}
