package io.kvtier.page;

/**
 * A part of one KV head of a page, of its own checksum, that can be read alone. The id is the
 * ordinal. A key bit plane is {@code [headDim / 8][64]} bytes: bit i of byte t of row j is the bit
 * of dimension 8j + i of token t.
 */
public enum Section {
  /** rot, affine: the plane of the highest bit of the key codes; for rot set where not negative. */
  K_SIGN(0),
  /** rot, affine of 2 bits or more: the plane of the second highest bit. */
  K_COARSE(1),
  /** rot, affine of 3 bits or more: the planes of the other bits, higher bits first. */
  K_FINE(2),
  /** rot: {@code [64]} fp16. */
  K_SCALES(3),
  /** rot: {@code [headDim]} fp16, the page's mean key, not rotated. */
  K_MEAN(4),
  /**
   * rot, affine: {@code [64]} rows of value codes, {@code headDim * bits / 8} bytes each: nibbles
   * for 4 bits, else bit planes.
   */
  V_CODES(5),
  /** rot: {@code [64]} fp16. */
  V_SCALES(6),
  /** rot: {@code [headDim]} fp16, the page's mean value, not rotated. */
  V_MEAN(7),
  /** raw16: {@code [64][headDim]} bf16 keys. */
  K_RAW(8),
  /** raw16: {@code [64][headDim]} bf16 values. */
  V_RAW(9),
  /** affine: {@code [headDim]} fp16 zeros, then {@code [headDim]} fp16 steps. */
  K_RANGES(10),
  /** affine: {@code [64][groups]} pairs of fp16, zero and step of a group of 64 dimensions. */
  V_RANGES(11),
  /** rot8: {@code [64]} rows of codes of what four bits leave of a key, as V_CODES of 4 bits. */
  K_REST(12),
  /** rot8: {@code [64]} fp16, steps of K_REST. */
  K_REST_STEPS(13),
  /** rot8: {@code [64]} rows of codes of what four bits leave of a value, as V_CODES of 4 bits. */
  V_REST(14),
  /** rot8: {@code [64]} fp16, steps of V_REST. */
  V_REST_STEPS(15);

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

  /** Whether this is a part of the keys; else it is one of the values. */
  public boolean ofKeys() {
    return switch (this) {
      case K_SIGN, K_COARSE, K_FINE, K_SCALES, K_MEAN, K_RAW, K_RANGES, K_REST, K_REST_STEPS ->
          true;
      case V_CODES, V_SCALES, V_MEAN, V_RAW, V_RANGES, V_REST, V_REST_STEPS -> false;
    };
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

  /**
   * Bytes of this section, without padding.
   *
   * @param codec of the keys for a section of keys, of the values for one of values; must have it
   */
  int length(Codec codec, int headDim) {
    return switch (this) {
      case K_SIGN, K_COARSE -> headDim / Byte.SIZE * PageLayout.TOKENS;
      case K_FINE -> (codec.bits() - 2) * (headDim / Byte.SIZE) * PageLayout.TOKENS;
      case K_SCALES, V_SCALES, K_REST_STEPS, V_REST_STEPS -> PageLayout.TOKENS * Short.BYTES;
      case K_MEAN, V_MEAN -> headDim * Short.BYTES;
      case V_CODES -> PageLayout.TOKENS * codec.bits() * headDim / Byte.SIZE;
      case K_REST, V_REST -> PageLayout.TOKENS * Codec.REST_BITS * headDim / Byte.SIZE;
      case K_RAW, V_RAW -> PageLayout.TOKENS * headDim * Short.BYTES;
      case K_RANGES -> 2 * headDim * Short.BYTES;
      case V_RANGES -> PageLayout.TOKENS * PageLayout.rangeGroups(headDim) * 2 * Short.BYTES;
    };
  }
}
