package io.kvtier.deploy.engine;

import org.jspecify.annotations.Nullable;

/** The weights of one layer. */
record LlamaLayer(
    RmsNorm inputNorm,
    Linear query,
    Linear key,
    Linear value,
    Linear output,
    RmsNorm mlpNorm,
    Linear gate,
    Linear up,
    Linear down) {

  static LlamaLayer read(Safetensors tensors, LlamaConfig config, int layer) {
    String prefix = "model.layers." + layer + ".";
    int hidden = config.hiddenSize();
    int wide = config.intermediateSize();
    boolean attention = config.attentionBias();
    boolean mlp = config.mlpBias();
    return new LlamaLayer(
        norm(tensors, prefix + "input_layernorm.weight", config),
        linear(tensors, prefix + "self_attn.q_proj", hidden, config.qWidth(), attention),
        linear(tensors, prefix + "self_attn.k_proj", hidden, config.kvWidth(), attention),
        linear(tensors, prefix + "self_attn.v_proj", hidden, config.kvWidth(), attention),
        linear(tensors, prefix + "self_attn.o_proj", config.qWidth(), hidden, attention),
        norm(tensors, prefix + "post_attention_layernorm.weight", config),
        linear(tensors, prefix + "mlp.gate_proj", hidden, wide, mlp),
        linear(tensors, prefix + "mlp.up_proj", hidden, wide, mlp),
        linear(tensors, prefix + "mlp.down_proj", wide, hidden, mlp));
  }

  static RmsNorm norm(Safetensors tensors, String name, LlamaConfig config) {
    return new RmsNorm(tensors.floats(name, config.hiddenSize()), config.rmsNormEps());
  }

  private static Linear linear(
      Safetensors tensors, String name, int inputs, int outputs, boolean biased) {
    float @Nullable [] bias = biased ? tensors.floats(name + ".bias", outputs) : null;
    if (!biased && tensors.names().contains(name + ".bias")) {
      throw new ModelFormatException(
          name + ".bias is in the weights, but config.json says there are no biases; correct one");
    }
    return new Linear(inputs, outputs, tensors.floats(name + ".weight", outputs, inputs), bias);
  }
}
