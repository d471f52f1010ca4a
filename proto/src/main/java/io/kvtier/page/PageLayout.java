package io.kvtier.page;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Where everything lies in a page of one geometry: offsets and lengths that follow from the codecs,
 * the number of KV heads and the head dimension alone (FORMAT.md, "Sections"). Immutable, free of
 * buffers; make one a session, not one a page.
 */
public final class PageLayout {
  /** Tokens of a full page. */
  public static final int TOKENS = 64;

  /** Sections begin at multiples of this many bytes: a cache line, and a 512-bit vector. */
  public static final int ALIGNMENT = 64;

  public static final int KV_HEADS_MAX = 128;
  public static final int HEAD_DIM_MAX = 256;

  /** The head dim is a multiple of this: a 512-bit vector of fp32. */
  public static final int HEAD_DIM_STEP = 16;

  /** Dimensions of a value that share a zero and a step in the affine codecs. */
  public static final int RANGE_GROUP = 64;

  /**
   * Found last: most often all pages are of one model. Its fields are final, so a race does no
   * harm.
   */
  private static @Nullable PageLayout lately;

  private final Codec keyCodec;
  private final Codec valueCodec;
  private final int kvHeads;
  private final int headDim;
  private final int sections;
  private final int sectionsPerHead;
  private final int headerLength;
  private final int headStride;
  private final int[] offsetInHead = new int[Section.count()];
  private final int[] rankInHead = new int[Section.count()];
  private final int[] lengths = new int[Section.count()];

  /**
   * Lays a page out.
   *
   * @throws KvtierException INVALID if kvHeads is not 1..128 or headDim no multiple of 16, 16..256
   */
  public PageLayout(Codec keyCodec, Codec valueCodec, int kvHeads, int headDim) {
    requireInRange("kv_heads", kvHeads, 1, KV_HEADS_MAX);
    requireHeadDim(headDim);
    this.keyCodec = keyCodec;
    this.valueCodec = valueCodec;
    this.kvHeads = kvHeads;
    this.headDim = headDim;
    this.sections = keySections(keyCodec) | valueSections(valueCodec);
    int offset = 0;
    int rank = 0;
    for (int id = 0; id < Section.count(); id++) {
      if ((sections & 1 << id) != 0) {
        offsetInHead[id] = offset;
        rankInHead[id] = rank++;
        Section section = Section.ofId(id);
        lengths[id] = section.length(section.ofKeys() ? keyCodec : valueCodec, headDim);
        offset += align(lengths[id]);
      }
    }
    this.sectionsPerHead = rank;
    this.headStride = offset;
    this.headerLength =
        align(PageHeaderFlyweight.TABLE_OFFSET + kvHeads * rank * PageHeaderFlyweight.ENTRY_LENGTH);
  }

  /**
   * The layout that a page's header describes; the header must have been checked.
   *
   * @throws KvtierException INVALID as the constructor
   */
  public static PageLayout of(org.agrona.DirectBuffer page, int offset) {
    PageLayout last = lately;
    if (last != null && last.isOf(page, offset)) {
      return last;
    }
    PageLayout found =
        new PageLayout(
            Codec.ofId(PageHeaderFlyweight.keyCodec(page, offset)),
            Codec.ofId(PageHeaderFlyweight.valueCodec(page, offset)),
            PageHeaderFlyweight.kvHeads(page, offset),
            PageHeaderFlyweight.headDim(page, offset));
    lately = found;
    return found;
  }

  private boolean isOf(org.agrona.DirectBuffer page, int offset) {
    return PageHeaderFlyweight.keyCodec(page, offset) == keyCodec.id()
        && PageHeaderFlyweight.valueCodec(page, offset) == valueCodec.id()
        && PageHeaderFlyweight.kvHeads(page, offset) == kvHeads
        && PageHeaderFlyweight.headDim(page, offset) == headDim;
  }

  /**
   * Checks a head dimension.
   *
   * @throws KvtierException INVALID if it is not a multiple of 16, 16..256
   */
  public static void requireHeadDim(long headDim) {
    requireInRange("head_dim", headDim, HEAD_DIM_STEP, HEAD_DIM_MAX);
    if (headDim % HEAD_DIM_STEP != 0) {
      throw KvtierException.invalid(
          "head_dim is %d; it must be a multiple of %d", headDim, HEAD_DIM_STEP);
    }
  }

  /** Groups of dimensions of a value that have a zero and a step each; the last may be shorter. */
  public static int rangeGroups(int headDim) {
    return (headDim + RANGE_GROUP - 1) / RANGE_GROUP;
  }

  static int align(int length) {
    return (length + ALIGNMENT - 1) & -ALIGNMENT;
  }

  static int keySections(Codec codec) {
    return switch (codec.family()) {
      case RAW -> Section.K_RAW.bit();
      case ROT ->
          planes(codec)
              | Section.set(Section.K_SCALES, Section.K_MEAN)
              | (codec.hasRest() ? Section.set(Section.K_REST, Section.K_REST_STEPS) : 0);
      case AFFINE -> planes(codec) | Section.K_RANGES.bit();
    };
  }

  private static int planes(Codec codec) {
    int planes = Section.K_SIGN.bit();
    if (codec.bits() > 1) {
      planes |= Section.K_COARSE.bit();
    }
    if (codec.bits() > 2) {
      planes |= Section.K_FINE.bit();
    }
    return planes;
  }

  static int valueSections(Codec codec) {
    return switch (codec.family()) {
      case RAW -> Section.V_RAW.bit();
      case ROT ->
          Section.set(Section.V_CODES, Section.V_SCALES, Section.V_MEAN)
              | (codec.hasRest() ? Section.set(Section.V_REST, Section.V_REST_STEPS) : 0);
      case AFFINE -> Section.set(Section.V_CODES, Section.V_RANGES);
    };
  }

  public Codec keyCodec() {
    return keyCodec;
  }

  public Codec valueCodec() {
    return valueCodec;
  }

  public int kvHeads() {
    return kvHeads;
  }

  public int headDim() {
    return headDim;
  }

  /** The sections that each head has, as a bit set. */
  public int sections() {
    return sections;
  }

  /** Bytes of the header with its section table, padded to the alignment. */
  public int headerLength() {
    return headerLength;
  }

  /** Bytes of a whole page. */
  public int pageLength() {
    return headerLength + kvHeads * headStride;
  }

  /** Byte offset of one head's section from the page's first byte. */
  public int offset(int kvHead, Section section) {
    return headerLength + kvHead * headStride + offsetInHead[requirePresent(section)];
  }

  /** Bytes of one head: its sections, each padded to the alignment. */
  public int headLength() {
    return headStride;
  }

  /** Byte offset of a section from its head's first byte. */
  public int offsetInHead(Section section) {
    return offsetInHead[requirePresent(section)];
  }

  /** Bytes of one head's section, without padding. */
  public int length(Section section) {
    return lengths[requirePresent(section)];
  }

  /** Index of one head's section in the section table. */
  public int tableIndex(int kvHead, Section section) {
    return kvHead * sectionsPerHead + rankInHead[requirePresent(section)];
  }

  /** Bytes of a set of sections of one head, laid end to end without padding. */
  public int lengthOf(int sectionSet) {
    int length = 0;
    for (int left = sectionSet; left != 0; left &= left - 1) {
      length += length(Section.ofId(Integer.numberOfTrailingZeros(left)));
    }
    return length;
  }

  /**
   * Byte offset of a section among a set of sections of one head, laid end to end without padding.
   */
  public int offsetIn(int sectionSet, Section section) {
    return lengthOf(sectionSet & (section.bit() - 1));
  }

  /** Layouts are equal if codecs, heads and head dims are. */
  @Override
  public boolean equals(@Nullable Object other) {
    return other instanceof PageLayout that
        && keyCodec == that.keyCodec
        && valueCodec == that.valueCodec
        && kvHeads == that.kvHeads
        && headDim == that.headDim;
  }

  @Override
  public int hashCode() {
    return Objects.hash(keyCodec, valueCodec, kvHeads, headDim);
  }

  private int requirePresent(Section section) {
    if ((sections & section.bit()) == 0) {
      throw KvtierException.invalid(
          "section %s is not in a page of codecs %s, %s", section, keyCodec, valueCodec);
    }
    return section.id();
  }
}
