package io.kvtier.deploy.engine;

/** What a prefill leaves besides the cached keys and values. */
public final class Prefill {
  private final float[] logits;
  private final int windowTokens;
  private final float[][] windowQueries;

  Prefill(float[] logits, int windowTokens, float[][] windowQueries) {
    this.logits = logits;
    this.windowTokens = windowTokens;
    this.windowQueries = windowQueries;
  }

  /** Logits after the last token, {@code [vocab]}, fp32; not copied. */
  public float[] logits() {
    return logits;
  }

  /** Tokens in the window: what was asked for, or fewer if the prefill was shorter. */
  public int windowTokens() {
    return windowTokens;
  }

  /** Rotated queries of the last tokens of a layer, {@code [windowTokens][qHeads][headDim]}. */
  public float[] windowQueries(int layer) {
    return windowQueries[layer];
  }

  /** Hears of a prefill's progress, on the caller's thread. */
  @FunctionalInterface
  public interface Progress {
    /** No one listens. */
    Progress NONE = (_, _) -> {};

    /** {@code done} of {@code total} tokens have passed all layers. */
    void tokensDone(int done, int total);
  }
}
