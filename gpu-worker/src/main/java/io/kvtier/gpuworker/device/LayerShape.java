package io.kvtier.gpuworker.device;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.attention.RowForm;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;

/**
 * What all layers of a session have in common.
 *
 * @param layout of its pages
 * @param qHeads a multiple of the layout's KV heads
 * @param exactBytes bytes an element of the exact rows takes: 2 (bf16) or 4 (fp32)
 * @param sinkTokens first tokens that stay exact, 0..64
 * @param windowTokens least number of last tokens that stay exact, 1..4096
 */
public record LayerShape(
    Fingerprint fingerprint,
    PageLayout layout,
    int qHeads,
    int exactBytes,
    int sinkTokens,
    int windowTokens) {
  /** The sketch of two planes: what stays on the device for most heads. */
  public static final int SKETCH = Residence.TWO_PLANES.sketch();

  /** What rows are fetched of beside it; of pages of four bits it stays for dense heads. */
  public static final int CODES = Residence.TWO_PLANES.rows();

  public LayerShape {
    if (qHeads < 1 || qHeads % layout.kvHeads() != 0) {
      throw KvtierException.invalid(
          "q_heads is %d; it must be a multiple of kv_heads (%d)", qHeads, layout.kvHeads());
    }
    if (exactBytes != Short.BYTES && exactBytes != Float.BYTES) {
      throw KvtierException.invalid("exact rows take %d bytes an element; 2 or 4 do", exactBytes);
    }
    requireInRange("sink tokens", sinkTokens, 0, PageLayout.TOKENS);
    requireInRange("window tokens", windowTokens, 1, 4096);
  }

  public int kvHeads() {
    return layout.kvHeads();
  }

  public int headDim() {
    return layout.headDim();
  }

  /** q heads that share one KV head. */
  public int group() {
    return qHeads / kvHeads();
  }

  /** Elements of one token's keys, or values. */
  public int rowLength() {
    return kvHeads() * headDim();
  }

  /** Most exact tokens: the window and a page that is about to leave it. */
  public int windowCapacity() {
    return windowTokens + PageLayout.TOKENS;
  }

  /** Device bytes of the exact rows of a layer. */
  public long exactRowBytes() {
    return 2L * (windowCapacity() + sinkTokens) * rowLength() * exactBytes;
  }

  /** Bytes of one head's sketch of a page. */
  public int sketchBytes(Residence residence) {
    return layout.lengthOf(residence.sketch());
  }

  /** How rows of chosen tokens lie on the device. */
  public RowForm rowForm() {
    return RowForm.of(layout);
  }

  /** Bytes of one head's codes of a page, as they are fetched or resident. */
  public int codesBytes(Residence residence) {
    return layout.lengthOf(residence.codes(layout));
  }

  /** Bytes of what four bits leave of one token of one head; 0: it is not stored. */
  public int finerRowBytes() {
    return layout.lengthOf(Residence.finer(layout)) / PageLayout.TOKENS;
  }

  /** Whole pages that have left the window once a layer has so many tokens. */
  public int pages(int tokens) {
    return Math.max(0, (tokens - windowTokens) / PageLayout.TOKENS);
  }
}
