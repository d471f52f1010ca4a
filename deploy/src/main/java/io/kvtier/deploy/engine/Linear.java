package io.kvtier.deploy.engine;

import org.jspecify.annotations.Nullable;

/**
 * A projection y = x W^T + b in fp32, its weights packed once into panels of 64 outputs.
 *
 * <p>A panel is {@code [inputs][64]}, contiguous, padded with zeros. It is taken in slices of 128
 * inputs (32 KiB), so that a slice stays in the first-level cache while all tokens pass it.
 */
final class Linear {
  private static final int PANEL = PanelKernel.COLUMNS;
  private static final int SLICE = 128;

  private final int inputs;
  private final int outputs;
  private final float[] panels;
  private final float[] bias;

  /**
   * Packs a matrix.
   *
   * @param weights {@code [outputs][inputs]}, row-major; not kept
   * @param bias {@code [outputs]}, or null
   */
  Linear(int inputs, int outputs, float[] weights, float @Nullable [] bias) {
    this.inputs = inputs;
    this.outputs = outputs;
    int count = (outputs + PANEL - 1) / PANEL;
    panels = new float[Math.multiplyExact(count * PANEL, inputs)];
    for (int row = 0; row < outputs; row++) {
      int base = row / PANEL * PANEL * inputs + row % PANEL;
      for (int column = 0; column < inputs; column++) {
        panels[base + column * PANEL] = weights[row * inputs + column];
      }
    }
    this.bias = new float[count * PANEL];
    if (bias != null) {
      System.arraycopy(bias, 0, this.bias, 0, outputs);
    }
  }

  /**
   * Projects tokens {@code from} to {@code to - 1}; other rows of {@code y} stay as they are.
   *
   * @param x {@code [tokens][inputs]}
   * @param y {@code [tokens][outputs]}
   */
  void apply(float[] x, float[] y, int from, int to) {
    int tokens = to - from;
    int full = outputs / PANEL;
    for (int panel = 0; panel < full; panel++) {
      panel(panel, x, from, tokens, y, from * outputs + panel * PANEL, outputs);
    }
    int rest = outputs - full * PANEL;
    if (rest > 0) {
      // The kernel writes whole panels; a narrower last one must not spill into the next token.
      float[] padded = new float[tokens * PANEL];
      panel(full, x, from, tokens, padded, 0, PANEL);
      for (int token = 0; token < tokens; token++) {
        int at = (from + token) * outputs + full * PANEL;
        System.arraycopy(padded, token * PANEL, y, at, rest);
      }
    }
  }

  private void panel(int panel, float[] x, int from, int tokens, float[] y, int y0, int yRow) {
    int base = panel * PANEL * inputs;
    for (int k = 0; k < inputs; k += SLICE) {
      int depth = Math.min(SLICE, inputs - k);
      int x0 = from * inputs + k;
      int b0 = base + k * PANEL;
      if (k == 0) {
        PanelKernel.multiply(
            tokens, depth, x, x0, inputs, 1, panels, b0, bias, panel * PANEL, 0, y, y0, yRow);
      } else {
        PanelKernel.multiply(tokens, depth, x, x0, inputs, 1, panels, b0, y, y0, yRow, y, y0, yRow);
      }
    }
  }
}
