package io.kvtier.page;

import io.kvtier.KvtierException;
import java.util.Arrays;
import java.util.Locale;
import java.util.stream.Collectors;

/** How a page's keys or values are coded; the ids are those of FORMAT.md. */
public enum Codec {
  /** bf16 rows, token-major: lossless for 16-bit engines. */
  RAW16(1, Family.RAW, 16),
  /** Page mean removed, rotated, 16 Lloyd-Max levels; keys in nested bit planes. */
  ROT4(2, Family.ROT, 4),
  ROT3(3, Family.ROT, 3),
  ROT2(4, Family.ROT, 2),
  ROT1(5, Family.ROT, 1),
  /** 16 steps from minimum to maximum: of a channel for keys, of 64 dimensions for values. */
  AFFINE4(6, Family.AFFINE, 4),
  AFFINE2(7, Family.AFFINE, 2),
  AFFINE1(8, Family.AFFINE, 1),
  /** ROT4, and beside it 16 equal steps of what its codes leave of each vector. */
  ROT8(9, Family.ROT, 4);

  /** Bits of an element's code of what is left. */
  public static final int REST_BITS = 4;

  /** Codecs that differ in nothing but their bits. */
  public enum Family {
    RAW,
    ROT,
    AFFINE
  }

  private final int id;
  private final Family family;
  private final int bits;

  Codec(int id, Family family, int bits) {
    this.id = id;
    this.family = family;
    this.bits = bits;
  }

  public int id() {
    return id;
  }

  public Family family() {
    return family;
  }

  /** Bits of an element's code; scales, means and what {@link #hasRest} tells of not counted. */
  public int bits() {
    return bits;
  }

  /** Whether what the codes leave is coded too, by {@link #REST_BITS} bits an element. */
  public boolean hasRest() {
    return this == ROT8;
  }

  /**
   * The codec of an id.
   *
   * @throws KvtierException INVALID if no codec has the id
   */
  public static Codec ofId(int id) {
    for (Codec codec : values()) {
      if (codec.id == id) {
        return codec;
      }
    }
    throw KvtierException.invalid("codec id is %d; known ids are %s", id, known());
  }

  private static String known() {
    return Arrays.stream(values())
        .map(codec -> codec.id + " (" + codec.name().toLowerCase(Locale.ROOT) + ")")
        .collect(Collectors.joining(", "));
  }
}
