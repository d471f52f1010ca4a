package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.Section;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import org.agrona.MutableDirectBuffer;

/**
 * How the row of a chosen rot4 token lies in device memory: {@code [headDim / 8]} words of its
 * key's full codes (dimension 8j + k in bits 4k to 4k + 3 of word j), its value's codes, the
 * value's scale, the key's scale, little-endian, without padding.
 *
 * <p>A fetched row lacks the planes that are resident as the sketch. It lies where its value's
 * codes come to their place, and {@link #AS_FETCHED} stands for the key's scale, until {@link
 * #join} makes the words: 32 to 64 cache lines of the sketch are read once, when a token comes in,
 * and not in each step that it is attended to.
 *
 * @param headDim a multiple of 16
 */
public record RowForm(int headDim) {
  /** In the place of a key's scale: the key is still as it was fetched. No scale is NaN. */
  private static final short AS_FETCHED = 0x7FFF;

  private static final int KEY_PLANES = Section.set(Section.K_COARSE, Section.K_FINE);

  private static final ValueLayout.OfByte BYTE = ValueLayout.JAVA_BYTE;
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Bits of a word's codes: of signs, coarse, middle and last bits. */
  private static final int[] PLANES = {0x8888_8888, 0x4444_4444, 0x2222_2222, 0x1111_1111};

  /** Bytes of a row; kernels may read up to 64 beyond. */
  public int bytes() {
    return headDim + 2 * Short.BYTES;
  }

  int valuesAt() {
    return headDim / 2;
  }

  int valueScaleAt() {
    return headDim;
  }

  int keyScaleAt() {
    return headDim + Short.BYTES;
  }

  /** Where a row begins that was fetched for a sketched residence. */
  public int fetchedAt(Residence residence) {
    return fetchedAt(residence.rows());
  }

  /** Where a row of so many sections begins. */
  public int fetchedAt(int sections) {
    // K_FINE has two planes.
    int planes = Integer.bitCount(sections & KEY_PLANES) + 1;
    return valuesAt() - planes * headDim / 8;
  }

  /** Says that a row has just been fetched. */
  public void markFetched(MutableDirectBuffer rows, int rowAt) {
    rows.putShort(rowAt + keyScaleAt(), AS_FETCHED, LITTLE_ENDIAN);
  }

  /** Whether a row's key is still as it was fetched. */
  public boolean isFetched(long row) {
    return OffHeap.ALL.get(SHORT, row + keyScaleAt()) == AS_FETCHED;
  }

  /**
   * Joins the key of a fetched row with what the sketch has of it.
   *
   * @param sketch address that {@code at}'s sketch offsets count from
   * @param planes of the sketch: 1, the row has K_COARSE; or 2
   * @param token 0..63
   */
  public void join(HeadOffsets at, long sketch, int planes, int token, long row, Scratch scratch) {
    int bytes = headDim / 8;
    long sign = sketch + at.planes() + token;
    long coarse = planes == 2 ? sign + at.planeLength() : row + valuesAt() - 3L * bytes;
    int coarseStep = planes == 2 ? TOKENS : 1;
    long middle = row + valuesAt() - 2L * bytes;
    long last = row + valuesAt() - bytes;
    int[] words = scratch.words;
    for (int j = 0; j < bytes; j++) {
      words[j] =
          spread(sign + (long) j * TOKENS, 0)
              | spread(coarse + (long) j * coarseStep, 1)
              | spread(middle + j, 2)
              | spread(last + j, 3);
    }
    for (int j = 0; j < bytes; j++) {
      OffHeap.ALL.set(INT, row + (long) Integer.BYTES * j, words[j]);
    }
    OffHeap.ALL.set(
        SHORT,
        row + keyScaleAt(),
        OffHeap.ALL.get(SHORT, sketch + at.keyScales() + (long) Short.BYTES * token));
  }

  private static int spread(long address, int plane) {
    return Integer.expand(OffHeap.ALL.get(BYTE, address), PLANES[plane]);
  }

  /**
   * Copies a row as it was fetched, whether it has been joined or not.
   *
   * @param sections of the fetched row, as a section set
   * @param to receives it from {@code toAt} on
   */
  public void copyFetched(long row, int sections, MutableDirectBuffer to, int toAt) {
    int from = fetchedAt(sections);
    int planeBytes = headDim / 8;
    int keyBytes = valuesAt() - from;
    boolean joined = !isFetched(row);
    for (int i = 0; i < keyBytes; i++) {
      byte bits =
          joined
              ? (byte)
                  Integer.compress(
                      OffHeap.ALL.get(INT, row + (long) Integer.BYTES * (i % planeBytes)),
                      PLANES[PLANES.length - keyBytes / planeBytes + i / planeBytes])
              : OffHeap.ALL.get(BYTE, row + from + i);
      to.putByte(toAt + i, bits);
    }
    for (int i = valuesAt(); i < keyScaleAt(); i++) {
      to.putByte(toAt + i - from, OffHeap.ALL.get(BYTE, row + i));
    }
  }

  /** The form of a layout's rows. */
  public static RowForm of(PageLayout layout) {
    return new RowForm(layout.headDim());
  }
}
