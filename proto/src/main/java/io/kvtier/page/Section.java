package io.kvtier.page;

/**
 * A part of one KV head of a page, of its own checksum, that can be read alone. The id is the
 * ordinal.
 */
public enum Section {
  /**
   * rot4: one bit a key code, set where it is negative; {@code [headDim]} words of 64 token bits.
   */
  K_SIGN(0),
  /** rot4: one bit a key code, set where the magnitude level is 4..7; {@code [headDim]} words. */
  K_COARSE(1),
  /** rot4: the magnitude level's two low bits; {@code [headDim][2]} words, the higher bit first. */
  K_FINE(2),
  /** rot4: {@code [64]} fp16. */
  K_SCALES(3),
  /** rot4: {@code [headDim]} fp16, the page's mean key, not rotated. */
  K_MEAN(4),
  /** rot4: {@code [64][headDim / 2]} bytes of two codes, the even dimension in the low nibble. */
  V_CODES(5),
  /** rot4: {@code [64]} fp16. */
  V_SCALES(6),
  /** rot4: {@code [headDim]} fp16, the page's mean value, not rotated. */
  V_MEAN(7),
  /** raw16: {@code [64][headDim]} bf16 keys. */
  K_RAW(8),
  /** raw16: {@code [64][headDim]} bf16 values. */
  V_RAW(9);

  private static final Section[] BY_ID = values();

  private final int id;

  Section(int id) {
    this.id = id;
  }

  public int id() {
    return id;
  }

  /** This section as a bit of a section set. */
  public int bit() {
    return 1 << id;
  }

  /** The union of some sections' bits. */
  public static int set(Section... sections) {
    int set = 0;
    for (Section section : sections) {
      set |= section.bit();
    }
    return set;
  }

  public static int count() {
    return BY_ID.length;
  }

  public static Section ofId(int id) {
    return BY_ID[id];
  }

  /** Bytes of this section for a head dimension, without padding. */
  public int length(int headDim) {
    return switch (this) {
      case K_SIGN, K_COARSE -> headDim * Long.BYTES;
      case K_FINE -> headDim * 2 * Long.BYTES;
      case K_SCALES, V_SCALES -> PageLayout.TOKENS * Short.BYTES;
      case K_MEAN, V_MEAN -> headDim * Short.BYTES;
      case V_CODES -> PageLayout.TOKENS * headDim / 2;
      case K_RAW, V_RAW -> PageLayout.TOKENS * headDim * Short.BYTES;
    };
  }
}
