package io.kvtier.deploy.bench;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.codec.PageDecoder;
import io.kvtier.codec.PageEncoder;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageLayout;
import java.util.List;
import java.util.SplittableRandom;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * rot4 encode and decode of pages of Llama-3.1-8B's geometry, against memcpy of the same fp32 rows,
 * one core.
 */
public final class CodecBenchmark implements Benchmark {
  private static final int KV_HEADS = 8;
  private static final int HEAD_DIM = 128;
  private static final int ELEMENTS = TOKENS * KV_HEADS * HEAD_DIM;

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
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, KV_HEADS, HEAD_DIM);
    PageIdentity identity = new PageIdentity(new Fingerprint(1, 1), 0, 0, TOKENS);
    UnsafeBuffer page = new UnsafeBuffer(new byte[layout.pageLength()]);
    float[] keys = gaussian(1);
    float[] values = gaussian(2);
    float[] keyCopy = new float[ELEMENTS];
    float[] valueCopy = new float[ELEMENTS];
    PageEncoder encoder = new PageEncoder(layout);
    PageDecoder decoder = new PageDecoder(layout);
    Runnable encode = () -> encoder.encode(identity, keys, values, page, 0);
    Runnable decode =
        () -> {
          for (int head = 0; head < KV_HEADS; head++) {
            int at = head * HEAD_DIM;
            decoder.keys(page, 0, head, TOKENS, keyCopy, at, KV_HEADS * HEAD_DIM);
            decoder.values(page, 0, head, TOKENS, valueCopy, at, KV_HEADS * HEAD_DIM);
          }
        };
    Runnable copy =
        () -> {
          System.arraycopy(keys, 0, keyCopy, 0, ELEMENTS);
          System.arraycopy(values, 0, valueCopy, 0, ELEMENTS);
        };
    encode.run();
    double[] encoded = Turns.medianSeconds(encode, copy, progress, "encode");
    double[] decoded = Turns.medianSeconds(decode, copy, progress, "decode");
    return List.of(
        row("rot4 encode / memcpy", encoded, ">= 0.3"),
        row("rot4 decode / memcpy", decoded, ">= 0.5"));
  }

  private BenchRow row(String name, double[] seconds, String goal) {
    double gigabytes = 2.0 * ELEMENTS * Float.BYTES / 1e9;
    double ours = gigabytes / seconds[0];
    double reference = gigabytes / seconds[1];
    return new BenchRow(name, ours, reference, ours / reference, "GB/s of fp32", goal, command());
  }

  private static float[] gaussian(long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] x = new float[ELEMENTS];
    for (int i = 0; i < x.length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    return x;
  }
}
