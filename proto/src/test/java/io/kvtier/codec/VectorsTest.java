package io.kvtier.codec;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;

import com.sun.management.ThreadMXBean;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import java.lang.management.ManagementFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class VectorsTest {
  private static final int CALLS = 20;
  private static final int ROUNDS_MAX = 2000;

  @Test
  void theChoiceSaysWhatItIs() {
    assertThat(Vectors.choose("off"))
        .isEqualTo(new Vectors.Choice(false, "scalar kernels (kvtier.simd=off)"));
    Vectors.Choice choice = Vectors.choose("");
    assertThat(choice.description())
        .matches(choice.enabled() ? "vector kernels, (256|512) bits" : "scalar kernels \\(.*\\)");
    assertThat(Vectors.description()).isNotEmpty();
    System.out.println(Vectors.description());
  }

  /**
   * Vectors that are not taken apart into registers are allocated: tens of kilobytes a call. The
   * compiler decides when it compiles: so the calls are repeated until it has, up to a bound.
   */
  @ParameterizedTest
  @CsvSource({"ROT4, ROT4", "ROT3, ROT2", "AFFINE4, AFFINE2", "RAW16, RAW16"})
  void encodingAndDecodingAllocateNothing(Codec keyCodec, Codec valueCodec) {
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    PageLayout layout = new PageLayout(keyCodec, valueCodec, 1, 128);
    float[] rows = CodecSamples.GAUSSIAN.rows(1, 128);
    float[] decoded = new float[rows.length];
    byte[] head = new byte[layout.headLength() + HeadCodec.SLACK];
    HeadCodec keys = HeadCodec.of(HeadSide.keys(layout), Vectors.enabled());
    HeadCodec values = HeadCodec.of(HeadSide.values(layout), Vectors.enabled());
    long bytes = Long.MAX_VALUE;
    for (int round = 0; round < ROUNDS_MAX && bytes > 0; round++) {
      long before = threads.getCurrentThreadAllocatedBytes();
      for (int call = 0; call < CALLS; call++) {
        keys.encode(rows, 0, 128, TOKENS, head);
        keys.decode(head, TOKENS, decoded, 0, 128);
        values.encode(rows, 0, 128, TOKENS, head);
        values.decode(head, TOKENS, decoded, 0, 128);
      }
      bytes = threads.getCurrentThreadAllocatedBytes() - before;
    }
    assertThat(bytes).isZero();
  }
}
