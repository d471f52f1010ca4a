package io.kvtier.gpuworker.device;

/**
 * Takes what a query of a layer needs and is not on the device: rows of chosen tokens, pages of
 * streamed heads, as they come. One thread.
 */
public interface CodesTaker {
  /**
   * Parts, of some KV heads each, that the choice is made in, one after the other, so that what one
   * needs is on its way while the next is chosen; 1 or more.
   */
  default int parts() {
    return 1;
  }

  /** Makes a part's choice, if that is still to be made; parts come in order, each once. */
  default void choosePart(int part) {}

  /**
   * The same, while this thread does something that has to do with earlier parts alone; other
   * threads, if the device has such, begin without it.
   */
  default void choosePart(int part, Runnable beside) {
    beside.run();
    choosePart(part);
  }

  /** The part that a KV head's choice is made in. */
  default int partOf(int kvHead) {
    return 0;
  }

  /** Sections of a chosen token's row, as a section set; 0: the head needs no rows. */
  int rowSections(int kvHead);

  /** Whether all pages of a head must be given, as a whole. */
  boolean streams(int kvHead);

  /** Tokens chosen for a KV head; all paged ones of a streamed head. */
  int chosenCount(int kvHead);

  /** Position of a chosen token; rising with the index. */
  int chosenPosition(int kvHead, int index);

  /**
   * Says where a chosen token's row lies. It stays the caller's, and must stay there until it has
   * been attended to. A row that is as it was fetched may be joined with the sketch in its place.
   *
   * @param index of the chosen token
   * @param rows device memory; the row, of {@link LayerShape#rowForm}, begins at {@code offset}
   */
  void giveRow(int kvHead, int index, DeviceSlot rows, int offset);

  /**
   * Whether a chosen token's row is to be given with what four bits leave of it: the row of {@link
   * io.kvtier.page.Residence#finer}. It is attended to when both are there. At most {@link
   * io.kvtier.page.Residence#FINER_TOKENS_MAX} of a head's are.
   */
  default boolean refines(int kvHead, int index) {
    return false;
  }

  /** Says where what four bits leave of a chosen token lies; as {@link #giveRow}. */
  default void giveRest(int kvHead, int index, DeviceSlot rests, int offset) {
    throw new IllegalStateException("KV head " + kvHead + " refines none of its tokens");
  }

  /** Takes back where rows lie that have not been attended to. */
  void forgetRows();

  /**
   * Goes on with each head that needs rows, page by page, up to the first whose rows were not all
   * given.
   */
  void attendRows();

  /** Chosen tokens of a head that have been attended to, from the first on. */
  int attendedCount(int kvHead);

  /**
   * Attends to pages of streamed heads; each head's pages must come once, in order.
   *
   * @param pages page indices, {@code count} of them
   * @param kvHeads likewise
   * @param codes likewise: each head's codes of a page, held by the caller during the call
   */
  void attendPages(int[] pages, int[] kvHeads, DeviceSlot[] codes, int count);

  /** Does what needs nothing else: the time to do it is while a fetch is under way. */
  void attendResident();

  /** The same, while this thread does something that leaves resident state alone. */
  default void attendResident(Runnable beside) {
    beside.run();
    attendResident();
  }
}
