package io.kvtier.page;

import io.kvtier.KvtierException;

/** How a page's keys or values are coded; the ids are those of FORMAT.md. */
public enum Codec {
  /** bf16 rows, token-major: lossless for 16-bit engines. */
  RAW16(1),
  /** Rotated, page mean removed, 16 Lloyd-Max levels; keys in three nested planes. */
  ROT4(2);

  private final int id;

  Codec(int id) {
    this.id = id;
  }

  public int id() {
    return id;
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
    throw KvtierException.invalid("codec id is %d; known ids are 1 (raw16) and 2 (rot4)", id);
  }
}
