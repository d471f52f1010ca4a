package io.kvtier.deploy.engine;

import java.util.Map;

/**
 * The oracle: Llama in scalar double precision, straight from the equations, without a cache.
 * Shares no code with the engine.
 */
final class ScalarLlama {
  /** Which dimension turns with dimension i: the planted bug is to take the neighbour. */
  enum Pairing {
    HALVES,
    NEIGHBOURS
  }

  private final RandomLlama model;
  private final RandomLlama.Shape s;
  private final Map<String, float[]> w;
  private final Pairing pairing;

  ScalarLlama(RandomLlama model, Pairing pairing) {
    this.model = model;
    this.s = model.shape;
    this.w = model.tensors;
    this.pairing = pairing;
  }

  /** Logits after every token, {@code [tokens][vocab]}. */
  double[][] logits(int[] ids) {
    double[][] x = new double[ids.length][];
    for (int t = 0; t < ids.length; t++) {
      x[t] = new double[s.hidden()];
      for (int i = 0; i < s.hidden(); i++) {
        x[t][i] = model.tensor("model.embed_tokens.weight")[ids[t] * s.hidden() + i];
      }
    }
    for (int layer = 0; layer < s.layers(); layer++) {
      x = layer("model.layers." + layer + ".", x);
    }
    double[][] logits = new double[ids.length][];
    for (int t = 0; t < ids.length; t++) {
      double[] last = norm("model.norm.weight", x[t]);
      String head = s.tied() ? "model.embed_tokens" : "lm_head";
      logits[t] = linear(head, last, s.vocab());
    }
    return logits;
  }

  private double[][] layer(String p, double[][] x) {
    int n = x.length;
    double[][] q = new double[n][];
    double[][] k = new double[n][];
    double[][] v = new double[n][];
    for (int t = 0; t < n; t++) {
      double[] normed = norm(p + "input_layernorm.weight", x[t]);
      q[t] = turned(linear(p + "self_attn.q_proj", normed, s.qHeads() * s.headDim()), t);
      k[t] = turned(linear(p + "self_attn.k_proj", normed, s.kvHeads() * s.headDim()), t);
      v[t] = linear(p + "self_attn.v_proj", normed, s.kvHeads() * s.headDim());
    }
    double[][] out = new double[n][];
    for (int t = 0; t < n; t++) {
      double[] attended = new double[s.qHeads() * s.headDim()];
      for (int head = 0; head < s.qHeads(); head++) {
        attend(q[t], k, v, t, head, attended);
      }
      double[] h = sum(x[t], linear(p + "self_attn.o_proj", attended, s.hidden()));
      double[] normed = norm(p + "post_attention_layernorm.weight", h);
      double[] gate = linear(p + "mlp.gate_proj", normed, s.wide());
      double[] up = linear(p + "mlp.up_proj", normed, s.wide());
      for (int i = 0; i < gate.length; i++) {
        gate[i] = gate[i] / (1 + Math.exp(-gate[i])) * up[i];
      }
      out[t] = sum(h, linear(p + "mlp.down_proj", gate, s.hidden()));
    }
    return out;
  }

  private void attend(double[] q, double[][] k, double[][] v, int t, int head, double[] out) {
    int d = s.headDim();
    int kvHead = head / (s.qHeads() / s.kvHeads());
    double[] p = new double[t + 1];
    double total = 0;
    for (int j = 0; j <= t; j++) {
      double score = 0;
      for (int i = 0; i < d; i++) {
        score += q[head * d + i] * k[j][kvHead * d + i];
      }
      p[j] = Math.exp(score / Math.sqrt(d));
      total += p[j];
    }
    for (int j = 0; j <= t; j++) {
      for (int i = 0; i < d; i++) {
        out[head * d + i] += p[j] / total * v[j][kvHead * d + i];
      }
    }
  }

  private double[] turned(double[] x, int position) {
    int d = s.headDim();
    double[] y = new double[x.length];
    for (int head = 0; head < x.length / d; head++) {
      for (int pair = 0; pair < d / 2; pair++) {
        int a = head * d + (pairing == Pairing.HALVES ? pair : 2 * pair);
        int b = pairing == Pairing.HALVES ? a + d / 2 : a + 1;
        double angle = position * frequency(pair);
        y[a] = x[a] * Math.cos(angle) - x[b] * Math.sin(angle);
        y[b] = x[b] * Math.cos(angle) + x[a] * Math.sin(angle);
      }
    }
    return y;
  }

  /**
   * As modeling_rope_utils of transformers computes it, for the settings of {@link RandomLlama}.
   */
  private double frequency(int pair) {
    double f = Math.pow(10000, -2.0 * pair / s.headDim());
    if (s.ropeScaling().contains("linear")) {
      return f / 4;
    }
    if (!s.ropeScaling().contains("llama3")) {
      return f;
    }
    double wavelength = 2 * Math.PI / f;
    if (wavelength < 64 / 4.0) {
      return f;
    }
    if (wavelength > 64 / 1.0) {
      return f / 8;
    }
    double smooth = (64 / wavelength - 1) / (4 - 1);
    return (1 - smooth) * f / 8 + smooth * f;
  }

  private double[] norm(String name, double[] x) {
    double squares = 0;
    for (double value : x) {
      squares += value * value;
    }
    double[] y = new double[x.length];
    for (int i = 0; i < x.length; i++) {
      y[i] = x[i] / Math.sqrt(squares / x.length + 1e-5) * model.tensor(name)[i];
    }
    return y;
  }

  private double[] linear(String name, double[] x, int outputs) {
    float[] weights = model.tensor(name + ".weight");
    float[] bias = w.get(name + ".bias");
    double[] y = new double[outputs];
    for (int o = 0; o < outputs; o++) {
      double sum = bias == null ? 0 : bias[o];
      for (int i = 0; i < x.length; i++) {
        sum += x[i] * weights[o * x.length + i];
      }
      y[o] = sum;
    }
    return y;
  }

  private static double[] sum(double[] a, double[] b) {
    double[] c = new double[a.length];
    for (int i = 0; i < c.length; i++) {
      c[i] = a[i] + b[i];
    }
    return c;
  }
}
