package io.kvtier.integration;

import static io.kvtier.integration.WrongCall.invalid;
import static io.kvtier.integration.WrongCall.refused;

import com.google.protobuf.ByteString;
import io.grpc.Status.Code;
import io.kvtier.codec.PageEncoder;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.ContainsRequest;
import io.kvtier.v1.DeleteRequest;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.GetRowsRequest;
import io.kvtier.v1.GetSectionsRequest;
import io.kvtier.v1.PutRequest;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumSet;
import java.util.List;
import java.util.UUID;
import java.util.function.Function;
import org.agrona.concurrent.UnsafeBuffer;

/** Everything that the Pages service refuses. */
final class WrongPages {
  private static final Fingerprint MODEL = new Fingerprint(0x0123_4567_89AB_CDEFL, 7);
  private static final PageLayout LAYOUT = new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64);

  /** Of a page that is stored before any wrong call is made. */
  static final ByteString STORED_KEY = key(1, MODEL, 0, LAYOUT);

  private static final ByteString FREE_KEY = key(2, MODEL, 0, LAYOUT);
  static final ByteString PAGE = page();

  private WrongPages() {}

  private static ByteString key(int index, Fingerprint model, int layer, PageLayout layout) {
    return PageKey.ofSession(new UUID(3, 4), index, model, layer, layout).toByteString();
  }

  private static ByteString page() {
    UnsafeBuffer page = new UnsafeBuffer(new byte[LAYOUT.pageLength()]);
    float[] rows = new Synthetic(5, 64).keys(0, 0, 64);
    new PageEncoder(LAYOUT).encode(new PageIdentity(MODEL, 0, 64, 64), rows, rows, page, 0);
    return ByteString.copyFrom(page.byteArray());
  }

  static List<WrongCall> calls() {
    List<WrongCall> calls = new ArrayList<>();
    calls.addAll(puts());
    calls.addAll(sections());
    calls.addAll(rows());
    calls.addAll(
        batches(
            "get",
            keys ->
                (at, s) ->
                    Loopback.drain(
                        at.pages().get(GetRequest.newBuilder().addAllKeys(keys).build()))));
    calls.addAll(
        batches(
            "contains",
            keys ->
                (at, s) -> {
                  var _ =
                      at.pages().contains(ContainsRequest.newBuilder().addAllKeys(keys).build());
                }));
    calls.addAll(
        batches(
            "delete",
            keys ->
                (at, s) -> {
                  var _ = at.pages().delete(DeleteRequest.newBuilder().addAllKeys(keys).build());
                }));
    return calls;
  }

  private static ByteString bytes(int length) {
    return ByteString.copyFrom(new byte[length]);
  }

  private static ByteString flipped(ByteString bytes, int index) {
    byte[] flipped = bytes.toByteArray();
    flipped[index] ^= 1;
    return ByteString.copyFrom(flipped);
  }

  /** Calls that name the stored page and something wrong: nothing of it may be done. */
  private static List<WrongCall> batches(
      String name, Function<List<ByteString>, WrongCall.Send> call) {
    ByteString unlike = flipped(STORED_KEY, 30);
    return List.of(
        invalid(name + ": no key", call.apply(List.of()), "0", "1024"),
        invalid(
            name + ": 1025 keys",
            call.apply(Collections.nCopies(1025, STORED_KEY)),
            "1025",
            "1024"),
        invalid(name + ": empty key", call.apply(List.of(STORED_KEY, bytes(0))), "0", "32"),
        invalid(name + ": key of 31", call.apply(List.of(STORED_KEY, bytes(31))), "31", "32"),
        invalid(name + ": key of 33", call.apply(List.of(STORED_KEY, bytes(33))), "33", "32"),
        invalid(name + ": key of no kind", call.apply(List.of(STORED_KEY, unlike)), "key"));
  }

  private static WrongCall.Send put(ByteString key, ByteString page) {
    PutRequest request = PutRequest.newBuilder().setKey(key).setPage(page).build();
    return (at, s) -> Loopback.exchange(at.pages().put(), List.of(request));
  }

  private static List<WrongCall> puts() {
    Fingerprint other = new Fingerprint(1, 7);
    PageLayout raw = new PageLayout(Codec.RAW16, Codec.RAW16, 2, 64);
    int length = PAGE.size();
    return List.of(
        invalid("put: nothing", put(ByteString.EMPTY, ByteString.EMPTY), "0", "32"),
        invalid("put: key of 31", put(bytes(31), PAGE), "31", "32"),
        invalid("put: key of 33", put(bytes(33), PAGE), "33", "32"),
        invalid("put: key of no kind", put(flipped(FREE_KEY, 31), PAGE), "key"),
        invalid("put: no page", put(FREE_KEY, ByteString.EMPTY), "0"),
        invalid("put: zeros", put(FREE_KEY, bytes(length))),
        invalid("put: a header alone", put(FREE_KEY, PAGE.substring(0, 64)), "64"),
        invalid("put: cut short", put(FREE_KEY, PAGE.substring(0, length - 1))),
        invalid("put: too long", put(FREE_KEY, PAGE.concat(bytes(1)))),
        invalid("put: a bit of the magic", put(FREE_KEY, flipped(PAGE, 0))),
        invalid("put: a bit of the version", put(FREE_KEY, flipped(PAGE, 4))),
        invalid("put: a bit of the header", put(FREE_KEY, flipped(PAGE, 16))),
        invalid("put: a bit of a section", put(FREE_KEY, flipped(PAGE, LAYOUT.headerLength()))),
        invalid("put: a bit under a stored key", put(STORED_KEY, flipped(PAGE, length / 2))),
        invalid("put: of another layer", put(key(2, MODEL, 1, LAYOUT), PAGE)),
        invalid("put: of another model", put(key(2, other, 0, LAYOUT), PAGE)),
        invalid("put: of another codec", put(key(2, MODEL, 0, raw), PAGE)),
        refused(
            "put: 65 MiB",
            EnumSet.of(Code.RESOURCE_EXHAUSTED),
            (at, s) -> put(FREE_KEY, bytes(65 << 20)).to(at, s),
            "67108864"));
  }

  private static WrongCall.Send get(SectionsOf... pages) {
    GetSectionsRequest request =
        GetSectionsRequest.newBuilder().addAllPages(List.of(pages)).build();
    return (at, s) -> Loopback.drain(at.pages().getSections(request));
  }

  private static SectionsOf.Builder right() {
    return SectionsOf.newBuilder().setKey(STORED_KEY).setHeadsLow(3).setSections(1);
  }

  private static List<WrongCall> sections() {
    SectionsOf good = right().build();
    return List.of(
        invalid("sections: no page", get(), "0", "1024"),
        invalid(
            "sections: 1025 pages",
            get(Collections.nCopies(1025, good).toArray(SectionsOf[]::new)),
            "1025",
            "1024"),
        invalid("sections: no key", get(good, right().clearKey().build()), "0", "32"),
        invalid("sections: key of 31", get(good, right().setKey(bytes(31)).build()), "31", "32"),
        invalid("sections: no head", get(good, right().clearHeadsLow().build()), "head"),
        invalid("sections: a head beyond", get(right().setHeadsLow(4).build()), "head", "2"),
        invalid(
            "sections: a head far beyond",
            get(right().clearHeadsLow().setHeadsHigh(1L << 63).build()),
            "head",
            "2"),
        invalid("sections: none", get(good, right().clearSections().build()), "section"),
        invalid("sections: id 12", get(right().setSections(1 << 12).build()), "section"),
        invalid("sections: id 31", get(right().setSections(1 << 31).build()), "section"),
        invalid("sections: of raw16", get(right().setSections(1 << 8).build()), "section"));
  }

  private static WrongCall.Send take(RowsOf... pages) {
    GetRowsRequest request = GetRowsRequest.newBuilder().addAllPages(List.of(pages)).build();
    return (at, s) -> Loopback.drain(at.pages().getRows(request));
  }

  private static RowsOf.Builder rightRows() {
    return RowsOf.newBuilder()
        .setKey(STORED_KEY)
        .setHeadsLow(3)
        .setSections(1)
        .addTokens(1)
        .addTokens(-1);
  }

  private static List<WrongCall> rows() {
    RowsOf good = rightRows().build();
    return List.of(
        invalid("rows: no page", take(), "0", "1024"),
        invalid(
            "rows: 1025 pages",
            take(Collections.nCopies(1025, good).toArray(RowsOf[]::new)),
            "1025",
            "1024"),
        invalid("rows: no key", take(good, rightRows().clearKey().build()), "0", "32"),
        invalid("rows: key of 33", take(good, rightRows().setKey(bytes(33)).build()), "33", "32"),
        invalid("rows: no head", take(good, rightRows().clearHeadsLow().build()), "head"),
        invalid("rows: a head beyond", take(rightRows().setHeadsLow(5).build()), "head", "2"),
        invalid("rows: no section", take(good, rightRows().clearSections().build()), "section"),
        invalid("rows: id 12", take(rightRows().setSections(1 << 12).build()), "section"),
        invalid("rows: of the mean key", take(rightRows().setSections(1 << 4).build()), "0x10"),
        invalid("rows: of raw16", take(rightRows().setSections(1 << 8).build()), "0x100"),
        invalid("rows: no tokens", take(good, rightRows().clearTokens().build()), "0", "2"),
        invalid("rows: a set too many", take(rightRows().addTokens(1).build()), "3", "2"),
        invalid("rows: an empty set", take(rightRows().setTokens(1, 0).build()), "tokens[1]"));
  }
}
