package io.kvtier.deploy.bench;

import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.Section;
import java.util.ArrayList;
import java.util.List;

/**
 * What one decode step of attention must read on an RTX 3090, for Llama-3.1-8B: bytes out of the
 * page format, times at the limit of its memory and its bus. Computed; nothing here was measured.
 */
public final class Roofline {
  /** Bytes a second of its memory, and of PCIe 4.0 x16, one way. */
  static final double MEMORY_BANDWIDTH = 936e9;

  static final double BUS_BANDWIDTH = 31.5e9;
  static final double MEMORY_BYTES = 24e9;

  private static final int LAYERS = 32;
  private static final int Q_HEADS = 32;
  private static final int KV_HEADS = 8;
  private static final int HEAD_DIM = 128;

  /** Dominant tokens a head, as many as the benchmarks of kernels choose. */
  private static final int CHOSEN = 1024;

  private static final int EXACT_ROWS = 4 + 64 + 32;
  private static final PageLayout LAYOUT =
      new PageLayout(Codec.ROT4, Codec.ROT4, KV_HEADS, HEAD_DIM);

  /**
   * One kernel, or what is resident, over all layers.
   *
   * @param tokens of the context
   * @param what the kernel
   * @param bytes that it must move, or that are resident
   * @param ms at the limit; NaN: it is no time
   * @param note what fits, or which limit
   */
  public record Row(int tokens, String what, double bytes, double ms, String note) {}

  private Roofline() {}

  /** The rows for 32k, 128k and 1M tokens. */
  public static List<Row> rows() {
    List<Row> rows = new ArrayList<>();
    for (int tokens : new int[] {32 << 10, 128 << 10, 1 << 20}) {
      rows.addAll(rows(tokens));
    }
    return rows;
  }

  static List<Row> rows(int tokens) {
    double heads = (double) LAYERS * KV_HEADS;
    double pagedTokens = heads * tokens;
    double sketch = perToken(Residence.TWO_PLANES.sketch());
    double valueMean = perToken(Section.V_MEAN.bit());
    double codes = perToken(Residence.DENSE.codes(LAYOUT));
    double scores = (double) LAYERS * Q_HEADS * tokens * Float.BYTES;
    double masses = pagedTokens * Float.BYTES;
    double rowBytes = heads * CHOSEN * perToken(Residence.TWO_PLANES.rows());
    double full = 2.0 * 2 * HEAD_DIM * pagedTokens;
    List<Row> rows = new ArrayList<>();
    rows.add(kernel(tokens, "window", heads * EXACT_ROWS * 2.0 * 2 * HEAD_DIM));
    rows.add(
        kernel(
            tokens,
            "scan: sketch read, scores written",
            pagedTokens * (sketch - valueMean) + scores));
    // Chunk sums, masses and the rest read the scores; histogram, count and collection the masses.
    rows.add(kernel(tokens, "choice: scores and masses", 2 * scores + 3 * masses));
    rows.add(
        kernel(
            tokens,
            "rest: value means, scores, masses",
            pagedTokens * valueMean + scores + masses));
    rows.add(kernel(tokens, "rows of %d tokens a head".formatted(CHOSEN), rowBytes));
    rows.add(
        new Row(tokens, "the same over the bus", rowBytes, 1e3 * rowBytes / BUS_BANDWIDTH, "bus"));
    double sparse = 0;
    for (Row row : rows) {
      sparse += row.note().equals("memory") ? row.ms() : 0;
    }
    rows.add(new Row(tokens, "all sparse heads' kernels together", Double.NaN, sparse, "sum"));
    rows.add(kernel(tokens, "dense, all heads, instead", pagedTokens * (sketch + codes)));
    rows.add(kernel(tokens, "full KV at 16 bits, to compare", full));
    rows.add(resident(tokens, "resident, all heads sparse", pagedTokens * sketch));
    rows.add(resident(tokens, "resident, all heads dense", pagedTokens * (sketch + codes)));
    rows.add(resident(tokens, "resident, full KV at 16 bits", full));
    return rows;
  }

  /** Bytes a token of a set of sections of one head. */
  private static double perToken(int sections) {
    return (double) LAYOUT.lengthOf(sections) / PageLayout.TOKENS;
  }

  private static Row kernel(int tokens, String what, double bytes) {
    return new Row(tokens, what, bytes, 1e3 * bytes / MEMORY_BANDWIDTH, "memory");
  }

  private static Row resident(int tokens, String what, double bytes) {
    String note =
        bytes <= MEMORY_BYTES
            ? "fits %d times, the model not counted".formatted((int) (MEMORY_BYTES / bytes))
            : "does not fit";
    return new Row(tokens, what, bytes, Double.NaN, note);
  }
}
