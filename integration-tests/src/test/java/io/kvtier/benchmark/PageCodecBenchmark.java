package io.kvtier.benchmark;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.codec.PageDecoder;
import io.kvtier.codec.PageEncoder;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageLayout;
import org.agrona.concurrent.UnsafeBuffer;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;

/**
 * Pages from fp32 rows and back, keys and values of all heads, headers and checksums included. Here
 * the score counts tokens of the whole layer, and {@code :bytes} the fp32 rows.
 */
@OperationsPerInvocation(TOKENS)
public class PageCodecBenchmark extends LayerBenchmark {
  private static final int ELEMENTS = TOKENS * KV_HEADS * HEAD_DIM;
  private static final int STRIDE = KV_HEADS * HEAD_DIM;

  /** From memory: 134 MB of rows, as many for what is decoded. */
  @Param({"64", "16384"})
  public int tokens;

  @Param({"ROT4", "AFFINE4"})
  public Codec codec = Codec.ROT4;

  private final PageIdentity identity = new PageIdentity(new Fingerprint(1, 1), 0, 0, TOKENS);
  private PageEncoder encoder;
  private PageDecoder decoder;

  /** {@code [pages]}. */
  private UnsafeBuffer[] encoded;

  /** {@code [pages][2: keys, values][64][kvHeads][headDim]}. */
  private float[][][] rows;

  private float[][][] decoded;
  private int nextPage;

  @Setup
  public void fill() {
    PageLayout layout = new PageLayout(codec, codec, KV_HEADS, HEAD_DIM);
    encoder = new PageEncoder(layout);
    decoder = new PageDecoder(layout);
    int pages = tokens / TOKENS;
    float[] some = gaussian(1, 2 * ELEMENTS);
    rows = new float[pages][2][ELEMENTS];
    decoded = new float[pages][2][ELEMENTS];
    encoded = new UnsafeBuffer[pages];
    for (int page = 0; page < pages; page++) {
      for (int side = 0; side < 2; side++) {
        System.arraycopy(some, page + side * 1000, rows[page][side], 0, ELEMENTS);
      }
      encoded[page] = new UnsafeBuffer(new byte[layout.pageLength()]);
      encoder.encode(identity, rows[page][0], rows[page][1], encoded[page], 0);
    }
  }

  private int turn(Traffic traffic) {
    traffic.bytes += 2L * ELEMENTS * Float.BYTES;
    nextPage = nextPage + 1 == rows.length ? 0 : nextPage + 1;
    return nextPage;
  }

  @Benchmark
  public UnsafeBuffer encode(Traffic traffic) {
    int page = turn(traffic);
    encoder.encode(identity, rows[page][0], rows[page][1], encoded[page], 0);
    return encoded[page];
  }

  @Benchmark
  public float[][] decode(Traffic traffic) {
    int page = turn(traffic);
    for (int head = 0; head < KV_HEADS; head++) {
      int at = head * HEAD_DIM;
      decoder.keys(encoded[page], 0, head, TOKENS, decoded[page][0], at, STRIDE);
      decoder.values(encoded[page], 0, head, TOKENS, decoded[page][1], at, STRIDE);
    }
    return decoded[page];
  }

  @Benchmark
  public float[][] copy(Traffic traffic) {
    int page = turn(traffic);
    System.arraycopy(rows[page][0], 0, decoded[page][0], 0, ELEMENTS);
    System.arraycopy(rows[page][1], 0, decoded[page][1], 0, ELEMENTS);
    return decoded[page];
  }

  @Benchmark
  public float read(Traffic traffic) {
    int page = turn(traffic);
    return kernels.max(rows[page][0], 0, ELEMENTS) + kernels.max(rows[page][1], 0, ELEMENTS);
  }
}
