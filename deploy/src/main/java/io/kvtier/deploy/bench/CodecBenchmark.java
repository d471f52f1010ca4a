package io.kvtier.deploy.bench;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.codec.PageDecoder;
import io.kvtier.codec.PageEncoder;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * rot4 encode and decode of pages of Llama-3.1-8B's geometry, checksums included, against memcpy of
 * the same fp32 rows, one core: rows that stay in the cache, and rows that come from memory, as an
 * engine's do.
 */
public final class CodecBenchmark implements Benchmark {
  private static final int KV_HEADS = 8;
  private static final int HEAD_DIM = 128;
  private static final int PAGE_ELEMENTS = TOKENS * KV_HEADS * HEAD_DIM;

  /** Pages whose rows, keys and values, are 128 MB. */
  private static final int MANY_PAGES = 256;

  private final PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, KV_HEADS, HEAD_DIM);
  private final PageIdentity identity = new PageIdentity(new Fingerprint(1, 1), 0, 0, TOKENS);
  private final PageEncoder encoder = new PageEncoder(layout);
  private final PageDecoder decoder = new PageDecoder(layout);

  @Override
  public String name() {
    return "codec";
  }

  @Override
  public String description() {
    return "rot4 encode and decode against memcpy of the fp32 rows, one core, 8 KV heads of 128";
  }

  @Override
  public List<BenchRow> run(BenchSettings settings, Progress progress) {
    List<BenchRow> rows = new ArrayList<>();
    measure(1, "in the cache", "", "", progress, rows);
    measure(MANY_PAGES, "from memory", ">= 0.3", ">= 0.5", progress, rows);
    return rows;
  }

  private void measure(
      int pages,
      String where,
      String encodeGoal,
      String decodeGoal,
      Progress progress,
      List<BenchRow> rows) {
    float[][] keys = gaussian(1, pages);
    float[][] values = gaussian(2, pages);
    float[][] keyCopy = new float[pages][PAGE_ELEMENTS];
    float[][] valueCopy = new float[pages][PAGE_ELEMENTS];
    UnsafeBuffer coded = new UnsafeBuffer(new byte[pages * layout.pageLength()]);
    Runnable encode =
        () -> {
          for (int page = 0; page < pages; page++) {
            encoder.encode(identity, keys[page], values[page], coded, page * layout.pageLength());
          }
        };
    Runnable decode =
        () -> {
          for (int page = 0; page < pages; page++) {
            decode(coded, page * layout.pageLength(), keyCopy[page], valueCopy[page]);
          }
        };
    Runnable copy =
        () -> {
          for (int page = 0; page < pages; page++) {
            System.arraycopy(keys[page], 0, keyCopy[page], 0, PAGE_ELEMENTS);
            System.arraycopy(values[page], 0, valueCopy[page], 0, PAGE_ELEMENTS);
          }
        };
    encode.run();
    double gigabytes = 2.0 * pages * PAGE_ELEMENTS * Float.BYTES / 1e9;
    String encodeName = "rot4 encode / memcpy, rows " + where;
    rows.add(
        row(
            encodeName,
            gigabytes,
            Turns.medianSeconds(encode, copy, progress, encodeName),
            encodeGoal));
    String decodeName = "rot4 decode / memcpy, rows " + where;
    rows.add(
        row(
            decodeName,
            gigabytes,
            Turns.medianSeconds(decode, copy, progress, decodeName),
            decodeGoal));
  }

  private void decode(UnsafeBuffer coded, int offset, float[] keys, float[] values) {
    for (int head = 0; head < KV_HEADS; head++) {
      int at = head * HEAD_DIM;
      decoder.keys(coded, offset, head, TOKENS, keys, at, KV_HEADS * HEAD_DIM);
      decoder.values(coded, offset, head, TOKENS, values, at, KV_HEADS * HEAD_DIM);
    }
  }

  private BenchRow row(String name, double gigabytes, double[] seconds, String goal) {
    double ours = gigabytes / seconds[0];
    double reference = gigabytes / seconds[1];
    return new BenchRow(name, ours, reference, ours / reference, "GB/s of fp32", goal, command());
  }

  private static float[][] gaussian(long seed, int pages) {
    SplittableRandom random = new SplittableRandom(seed);
    float[][] x = new float[pages][PAGE_ELEMENTS];
    for (float[] page : x) {
      for (int i = 0; i < page.length; i++) {
        page[i] = (float) random.nextGaussian();
      }
    }
    return x;
  }
}
