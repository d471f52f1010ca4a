package io.kvtier.page;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.page.Pages.Flaw;
import java.util.SplittableRandom;
import java.util.UUID;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.Test;

class PagesTest {
  private static final Fingerprint MODEL = new Fingerprint(0x1122334455667788L, 9);
  private static final PageLayout LAYOUT = new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64);

  private static UnsafeBuffer sealedPage() {
    UnsafeBuffer page = new UnsafeBuffer(new byte[LAYOUT.pageLength()]);
    SplittableRandom random = new SplittableRandom(1);
    for (int head = 0; head < 2; head++) {
      for (int id = 0; id < Section.count(); id++) {
        if ((LAYOUT.sections() & 1 << id) != 0) {
          byte[] bytes = new byte[LAYOUT.length(Section.ofId(id))];
          random.nextBytes(bytes);
          page.putBytes(LAYOUT.offset(head, Section.ofId(id)), bytes);
        }
      }
    }
    Pages.seal(page, 0, LAYOUT, new PageIdentity(MODEL, 3, 128, 64));
    return page;
  }

  @Test
  void aSealedPageVerifiesAndTellsItsIdentity() {
    UnsafeBuffer page = sealedPage();
    assertThat(Pages.verify(page, 0, page.capacity())).isEqualTo(Flaw.NONE);
    assertThat(Pages.identity(page, 0)).isEqualTo(new PageIdentity(MODEL, 3, 128, 64));
  }

  @Test
  void everyFlippedBitOfHeaderAndSectionsIsSeen() {
    UnsafeBuffer page = sealedPage();
    for (int at = 0; at < page.capacity(); at++) {
      byte before = page.getByte(at);
      page.putByte(at, (byte) (before ^ 1 << at % 8));
      assertThat(Pages.verify(page, 0, page.capacity())).as("byte %d", at).isNotEqualTo(Flaw.NONE);
      page.putByte(at, before);
    }
  }

  @Test
  void truncatedForeignNewerAndMisplacedPagesAreToldApart() {
    UnsafeBuffer page = sealedPage();
    int length = page.capacity();
    assertThat(Pages.verify(page, 0, 10)).isEqualTo(Flaw.LENGTH);
    assertThat(Pages.verify(page, 0, length - 64)).isEqualTo(Flaw.LENGTH);
    UnsafeBuffer foreign = new UnsafeBuffer(new byte[length]);
    assertThat(Pages.verify(foreign, 0, length)).isEqualTo(Flaw.MAGIC);
    for (int version : new int[] {0, 1, 3}) {
      page.putByte(4, (byte) version);
      assertThat(Pages.verify(page, 0, length)).isEqualTo(Flaw.VERSION);
    }
    UnsafeBuffer good = sealedPage();
    UUID session = new UUID(1, 2);
    PageKey own = PageKey.ofSession(session, 2, MODEL, 3, LAYOUT);
    PageKey otherLayer = PageKey.ofSession(session, 2, MODEL, 4, LAYOUT);
    PageKey otherModel = PageKey.ofSession(session, 2, new Fingerprint(1, 2), 3, LAYOUT);
    assertThat(Pages.verify(own, good, 0, length)).isEqualTo(Flaw.NONE);
    assertThat(Pages.verify(otherLayer, good, 0, length)).isEqualTo(Flaw.KEY);
    assertThat(Pages.verify(otherModel, good, 0, length)).isEqualTo(Flaw.KEY);
  }

  @Test
  void keysSurviveTheWireAndForeignBytesAreRefused() {
    PageKey key = PageKey.ofSession(new UUID(-5, 77), 123_456, MODEL, 31, LAYOUT);
    assertThat(PageKey.of(key.toByteString())).isEqualTo(key);
    assertThat(key.layer()).isEqualTo(31);
    assertThatThrownBy(() -> PageKey.of(ByteString.copyFrom(new byte[31])))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("31 bytes");
    assertThatThrownBy(() -> PageKey.of(ByteString.copyFrom(new byte[32])))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("0100");
  }

  @Test
  void aPageOfTheReferenceGeometryTakesAtMostTwentyNinePercentOfFp16() {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 8, 128);
    assertThat(layout.pageLength() / (64.0 * 8 * 128 * 2 * 2)).isLessThan(.29);
  }
}
