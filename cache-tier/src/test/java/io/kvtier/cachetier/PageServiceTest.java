package io.kvtier.cachetier;

import static io.kvtier.cachetier.TestPages.ROT4;
import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.cachetier.Read.Hit;
import io.kvtier.cachetier.Read.Miss;
import io.kvtier.cachetier.Read.MissReason;
import io.kvtier.cachetier.cache.CacheLimits;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.cache.Removal;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.page.Codec;
import io.kvtier.page.PageHeaderFlyweight;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.function.Supplier;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Nothing flawed goes in, nothing flawed comes out. */
final class PageServiceTest {
  private static final int LAYER = 5;
  private static final int LENGTH = ROT4.pageLength();
  private static final PageKey KEY = key(1, 0, LAYER, ROT4);

  private FlippingPageStore store;
  private PageService pages;

  @BeforeEach
  void open() {
    store = new FlippingPageStore(ChroniclePageStore.openTemporary(1 << 20));
    pages = new PageService(store);
  }

  @AfterEach
  void close() {
    store.close();
  }

  private Read<byte[]> get(PageKey key) {
    return pages.get(
        key,
        (page, offset, length) -> {
          byte[] copy = new byte[length];
          page.getBytes(offset, copy);
          return copy;
        });
  }

  private static byte[] value(Read<byte[]> read) {
    assertThat(read).isInstanceOf(Hit.class);
    return ((Hit<byte[]>) read).value();
  }

  private void assertRefused(PageKey key, UnsafeBuffer page, int length, String message) {
    long stored = store.pages();
    long used = store.bytesUsed();
    assertThatThrownBy(() -> pages.put(key, page, 0, length))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.INVALID))
        .hasMessageContaining(message);
    assertThat(store.pages()).isEqualTo(stored);
    assertThat(store.bytesUsed()).isEqualTo(used);
    assertThat(pages.counts().putsStored()).isEqualTo(stored);
  }

  @Test
  void aSoundPageGoesThroughUnchangedAndIsCounted() {
    UnsafeBuffer page = page(ROT4, LAYER, 1);
    assertThat(get(KEY)).isEqualTo(new Miss<byte[]>(MissReason.ABSENT));
    assertThat(pages.put(KEY, page, 0, LENGTH)).isEqualTo(PutResult.STORED);
    assertThat(pages.put(KEY, page, 0, LENGTH)).isEqualTo(PutResult.EXISTED);
    assertThat(value(get(KEY))).isEqualTo(page.byteArray());
    PageCounts counts = pages.counts();
    assertThat(counts.putsStored()).isEqualTo(1);
    assertThat(counts.putsExisted()).isEqualTo(1);
    assertThat(counts.bytesIn()).isEqualTo(LENGTH);
    assertThat(counts.hits()).isEqualTo(1);
    assertThat(counts.bytesOut()).isEqualTo(LENGTH);
    assertThat(counts.missesAbsent()).isEqualTo(1);
    assertThat(counts.missesCorrupt()).isZero();
  }

  @Test
  void flawedPagesAreRefusedByTheNameOfTheFlaw() {
    UnsafeBuffer good = page(ROT4, LAYER, 1);
    pages.put(key(2, 0, LAYER, ROT4), good, 0, LENGTH);
    UnsafeBuffer garbage = new UnsafeBuffer(TestPages.bytes(1, LENGTH));
    assertRefused(KEY, garbage, LENGTH, "has a flaw: MAGIC");
    assertRefused(KEY, good, LENGTH - 64, "has a flaw: LENGTH");
    assertRefused(KEY, good, 17, "has a flaw: LENGTH");
    assertRefused(key(1, 0, LAYER + 1, ROT4), good, LENGTH, "has a flaw: KEY");
    assertRefused(key(1, 0, LAYER, TestPages.raw16(2, 64)), good, LENGTH, "has a flaw: KEY");
    assertRefused(KEY, flipped(good, ROT4.offset(1, Section.V_CODES)), LENGTH, "SECTION_CHECKSUM");
    assertRefused(KEY, flipped(good, PageHeaderFlyweight.TABLE_OFFSET), LENGTH, "HEADER_CHECKSUM");
    assertRefused(KEY, good, 0, "page length is 0; it must be 1..16777216");
  }

  private static UnsafeBuffer flipped(UnsafeBuffer page, int at) {
    byte[] copy = page.byteArray().clone();
    copy[at] ^= 1;
    return new UnsafeBuffer(copy);
  }

  @Test
  void aFlippedBitIsAMissWhereverItIs() {
    long seed = System.nanoTime();
    System.out.println("aFlippedBitIsAMissWhereverItIs seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    int corrupt = 0;
    for (Section section : Section.values()) {
      for (int head = 0; head < 2 && (ROT4.sections() & section.bit()) != 0; head++) {
        PageKey key = key(2, section.id(), LAYER, ROT4);
        pages.put(key, page(ROT4, LAYER, head), 0, LENGTH);
        int at = ROT4.offset(head, section) + random.nextInt(ROT4.length(section));
        store.flip(key, at);
        assertThat(get(key)).isEqualTo(new Miss<byte[]>(MissReason.CORRUPT));
        assertThat(pages.counts().missesCorrupt()).isEqualTo(++corrupt);
        assertThat(store.pages()).as("it has been removed").isZero();
        assertThat(store.bytesUsed()).isZero();
        assertThat(get(key)).isEqualTo(new Miss<byte[]>(MissReason.ABSENT));
      }
    }
    assertThat(corrupt).isEqualTo(16);
    assertThat(pages.counts().hits()).isZero();
    assertThat(pages.counts().bytesOut()).isZero();
  }

  @Test
  void sectionsAreVerifiedAloneWithTheHeader() {
    SectionSelection sketch = new SectionSelection(0b10, 0, Section.K_SIGN.bit());
    UnsafeBuffer page = page(ROT4, LAYER, 1);
    pages.put(KEY, page, 0, LENGTH);
    store.flip(KEY, ROT4.offset(0, Section.K_SIGN));
    assertThat(value(pages.getSections(KEY, sketch))).hasSize(64 * Long.BYTES);
    store.flip(KEY, ROT4.offset(1, Section.K_SIGN) + 9);
    assertThat(pages.getSections(KEY, sketch)).isEqualTo(new Miss<byte[]>(MissReason.CORRUPT));
    assertThat(store.pages()).isZero();
    pages.put(KEY, page, 0, LENGTH);
    store.flip(KEY, PageHeaderFlyweight.TABLE_OFFSET + 3);
    assertThat(pages.getSections(KEY, sketch)).isEqualTo(new Miss<byte[]>(MissReason.CORRUPT));
    assertThat(pages.counts().missesCorrupt()).isEqualTo(2);
    assertThat(pages.getSections(KEY, sketch)).isEqualTo(new Miss<byte[]>(MissReason.ABSENT));
  }

  /** Put past the service, as by a store that mixes its keys up. */
  @Test
  void aPageUnderAnothersKeyIsAMissForEveryReader() {
    UnsafeBuffer page = page(ROT4, LAYER + 1, 1);
    SectionSelection sketch = new SectionSelection(0b10, 0, Section.K_SIGN.bit());
    List<Supplier<Read<?>>> reads =
        List.of(
            () -> get(KEY),
            () -> pages.getSections(KEY, sketch),
            () -> pages.readSections(KEY, sketch, (bytes, offset, length) -> length),
            () ->
                pages.rows(
                    KEY,
                    new RowSelection(sketch, new long[] {5}),
                    (bytes, offset, layout, rows) -> rows.length()));
    for (Supplier<Read<?>> read : reads) {
      store.put(KEY, page, 0, LENGTH);
      assertThat(read.get()).isEqualTo(new Miss<>(MissReason.CORRUPT));
      assertThat(store.pages()).isZero();
      pages.put(KEY, page(ROT4, LAYER, 1), 0, LENGTH);
      assertThat(read.get()).isInstanceOf(Hit.class);
      store.delete(KEY);
    }
  }

  @Test
  void sectionsComeByHeadThenByIdWithoutPadding() {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 70, 16);
    PageKey key = key(1, 0, LAYER, layout);
    UnsafeBuffer page = page(layout, LAYER, 1);
    pages.put(key, page, 0, page.capacity());
    long seed = System.nanoTime();
    System.out.println("sectionsComeByHeadThenByIdWithoutPadding seed " + seed);
    SplittableRandom random = new SplittableRandom(seed);
    for (int round = 0; round < 200; round++) {
      long low = random.nextLong();
      long high = random.nextInt(1 << 6);
      int sections = 1 + random.nextInt(layout.sections());
      byte[] data = value(pages.getSections(key, new SectionSelection(low, high, sections)));
      int at = 0;
      for (int head = 0; head < 70; head++) {
        boolean asked = ((head < 64 ? low >>> head : high >>> (head - 64)) & 1) != 0;
        for (int id = 0; asked && id < Section.count(); id++) {
          if ((sections >>> id & 1) != 0) {
            Section section = Section.ofId(id);
            byte[] expected = new byte[layout.length(section)];
            page.getBytes(layout.offset(head, section), expected);
            assertThat(Arrays.copyOfRange(data, at, at + expected.length)).isEqualTo(expected);
            at += expected.length;
          }
        }
      }
      assertThat(at).isEqualTo(data.length);
    }
  }

  /** The switch: the tier looks at nothing that is the reader's to verify, and the scrub does. */
  @Test
  void whereTheReaderVerifiesTheTierServesWhatItHas() {
    PageCache cache =
        new PageCache(
            store,
            CacheLimits.none(),
            new LeaseTable(LeaseLimits.defaults(), 1),
            new EventLog(16, 1),
            (reason, ageNs, length) -> {},
            () -> 0);
    PageService reader = new PageService(cache, Verification.READER);
    PageService tier = new PageService(cache, Verification.TIER);
    SectionSelection sketch = new SectionSelection(0b10, 0, Section.K_SIGN.bit());
    int at = ROT4.offset(1, Section.K_SIGN);
    reader.put(KEY, page(ROT4, LAYER, 1), 0, LENGTH);
    store.flip(KEY, at);
    Read<Integer> flawed = reader.get(KEY, (page, offset, length) -> (int) page.getByte(at));
    assertThat(flawed).isEqualTo(new Hit<>(page(ROT4, LAYER, 1).getByte(at) ^ 1));
    assertThat(reader.getSections(KEY, sketch)).isInstanceOf(Hit.class);
    store.flip(KEY, PageHeaderFlyweight.TABLE_OFFSET);
    assertThat(reader.getSections(KEY, sketch))
        .as("what tells where sections are is verified")
        .isEqualTo(new Miss<byte[]>(MissReason.CORRUPT));
    assertThat(cache.removed(Removal.CORRUPT)).isEqualTo(1);
    reader.put(KEY, page(ROT4, LAYER, 1), 0, LENGTH);
    store.flip(KEY, at);
    assertThat(tier.get(KEY, (page, offset, length) -> length))
        .isEqualTo(new Miss<Integer>(MissReason.CORRUPT));
    assertThatThrownBy(() -> reader.put(KEY, new UnsafeBuffer(new byte[LENGTH]), 0, LENGTH))
        .as("puts are verified in any case")
        .hasMessageContaining("has a flaw: MAGIC");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          0 | 0 | 1   | heads is an empty set; it must have at least one of 0..127
          1 | 0 | 0   | sections is an empty set; it must have at least one of 0..15
          1 | 0 | 65536| sections is 0x10000; it must be within 0xffff (section ids 0..15)
          1 | 0 | -1  | sections is 0xffffffff; it must be within 0xffff (section ids 0..15)
          5 | 0 | 1   | heads has head 2; the page has heads 0..1
          1 | 1 | 1   | heads has head 64; the page has heads 0..1
          -1| -1| 1   | heads has head 127; the page has heads 0..1
          1 | 0 | 257 | sections is 0x101; the page has sections 0xff (codecs ROT4, ROT4)
          """)
  void selectionsBeyondThePageAreRefused(long low, long high, int sections, String message) {
    pages.put(KEY, page(ROT4, LAYER, 1), 0, LENGTH);
    assertThatThrownBy(() -> pages.getSections(KEY, new SectionSelection(low, high, sections)))
        .isInstanceOf(KvtierException.class)
        .hasMessage(message);
    assertThat(store.pages()).isEqualTo(1);
    assertThat(pages.counts().hits()).isZero();
    assertThat(pages.counts().missesCorrupt()).isZero();
  }
}
