package io.kvtier.page;

import java.util.List;

/**
 * How much of a rot4 head's pages stays on a worker's device, from most to least. What is not there
 * is fetched when it is attended to.
 */
public enum Residence {
  /** Everything: the sketch and the codes. */
  DENSE(2),
  /** The sketch of two key planes, scales and means; the other codes are fetched. */
  TWO_PLANES(2),
  /** The sketch of one key plane, scales and means; the other codes are fetched. */
  ONE_PLANE(1),
  /** Nothing: every step streams all of the head's pages through. */
  STREAMED(0);

  private static final int TWO_PLANE_SKETCH =
      Section.set(
          Section.K_SIGN, Section.K_COARSE, Section.K_SCALES, Section.K_MEAN, Section.V_MEAN);
  private static final int ONE_PLANE_SKETCH = TWO_PLANE_SKETCH & ~Section.K_COARSE.bit();
  private static final int CODES = Section.set(Section.K_FINE, Section.V_CODES, Section.V_SCALES);

  /** What rot8 has beside. */
  private static final int FINER =
      Section.set(Section.K_REST, Section.K_REST_STEPS, Section.V_REST, Section.V_REST_STEPS);

  private static final int SLOT_ALIGNMENT = 64;

  /** Most tokens of a head whose {@link #finer} sections one query reads. */
  public static final int FINER_TOKENS_MAX = 32;

  /** Those between all and nothing, which scan a sketch and choose. */
  public static final List<Residence> SKETCHED = List.of(TWO_PLANES, ONE_PLANE);

  private final int planes;

  Residence(int planes) {
    this.planes = planes;
  }

  /** Key planes of the resident sketch, 0..2. */
  public int planes() {
    return planes;
  }

  /** Sections that are resident as the sketch, as a section set; 0: there is none. */
  public int sketch() {
    return switch (this) {
      case DENSE, TWO_PLANES -> TWO_PLANE_SKETCH;
      case ONE_PLANE -> ONE_PLANE_SKETCH;
      case STREAMED -> 0;
    };
  }

  /**
   * Sections of a layout that are attended to beside the sketch: fetched, or resident where dense.
   */
  public int codes(PageLayout layout) {
    int rest =
        switch (this) {
          case DENSE, TWO_PLANES -> CODES;
          case ONE_PLANE -> CODES | Section.K_COARSE.bit();
          case STREAMED -> CODES | TWO_PLANE_SKETCH;
        };
    return rest | finer(layout);
  }

  /**
   * Sections that the rows of dominant tokens are made of, but for what {@link #finer} says of the
   * heaviest, as a section set; 0: there are none.
   */
  public int rows() {
    return switch (this) {
      case DENSE, STREAMED -> 0;
      case TWO_PLANES -> CODES;
      case ONE_PLANE -> CODES | Section.K_COARSE.bit();
    };
  }

  /** Sections of a layout that say of tokens what four bits leave; 0: there are none. */
  public static int finer(PageLayout layout) {
    boolean both = layout.keyCodec().hasRest() && layout.valueCodec().hasRest();
    return both ? FINER : 0;
  }

  /** Device bytes of one page of one head. */
  public int deviceBytes(PageLayout layout) {
    int sketch = slot(layout.lengthOf(sketch()));
    return this == DENSE ? sketch + slot(layout.lengthOf(codes(layout))) : sketch;
  }

  private static int slot(int length) {
    return (length + SLOT_ALIGNMENT - 1) & -SLOT_ALIGNMENT;
  }
}
