package io.kvtier.deploy.engine;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;

/**
 * A Llama with random weights, written as Hugging Face writes one. The weights kept are the rounded
 * ones.
 */
final class RandomLlama {
  /** What varies between test models. */
  record Shape(
      int hidden,
      int wide,
      int layers,
      int qHeads,
      int kvHeads,
      int headDim,
      int vocab,
      String dtype,
      boolean tied,
      boolean biases,
      int shards,
      String ropeScaling) {}

  static final String LLAMA3 =
      """
      {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
       "original_max_position_embeddings": 64}\
      """;

  final Shape shape;
  final Map<String, float[]> tensors = new LinkedHashMap<>();
  private final Map<String, long[]> shapes = new LinkedHashMap<>();

  RandomLlama(Shape shape, long seed) {
    this.shape = shape;
    Random random = new Random(seed);
    add("model.embed_tokens.weight", random, 1, shape.vocab, shape.hidden);
    int q = shape.qHeads * shape.headDim;
    int kv = shape.kvHeads * shape.headDim;
    for (int layer = 0; layer < shape.layers; layer++) {
      String p = "model.layers." + layer + ".";
      norm(p + "input_layernorm.weight", random);
      linear(p + "self_attn.q_proj", random, q, shape.hidden);
      linear(p + "self_attn.k_proj", random, kv, shape.hidden);
      linear(p + "self_attn.v_proj", random, kv, shape.hidden);
      linear(p + "self_attn.o_proj", random, shape.hidden, q);
      norm(p + "post_attention_layernorm.weight", random);
      linear(p + "mlp.gate_proj", random, shape.wide, shape.hidden);
      linear(p + "mlp.up_proj", random, shape.wide, shape.hidden);
      linear(p + "mlp.down_proj", random, shape.hidden, shape.wide);
    }
    norm("model.norm.weight", random);
    if (!shape.tied) {
      add("lm_head.weight", random, 1 / Math.sqrt(shape.hidden), shape.vocab, shape.hidden);
    }
  }

  private void linear(String name, Random random, int outputs, int inputs) {
    add(name + ".weight", random, 1.5 / Math.sqrt(inputs), outputs, inputs);
    if (shape.biases) {
      add(name + ".bias", random, 0.3, outputs);
    }
  }

  private void norm(String name, Random random) {
    add(name, random, 0.2, shape.hidden);
    float[] weights = tensor(name);
    for (int i = 0; i < weights.length; i++) {
      weights[i] = rounded(1 + weights[i]);
    }
  }

  private void add(String name, Random random, double scale, long... extents) {
    int count = 1;
    for (long extent : extents) {
      count *= (int) extent;
    }
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = rounded((float) (scale * random.nextGaussian()));
    }
    tensors.put(name, values);
    shapes.put(name, extents);
  }

  private float rounded(float value) {
    return switch (shape.dtype) {
      case "F16" -> Float.float16ToFloat(Float.floatToFloat16(value));
      case "BF16" -> Float.intBitsToFloat(Float.floatToRawIntBits(value) & 0xffff0000);
      default -> value;
    };
  }

  float[] tensor(String name) {
    return Objects.requireNonNull(tensors.get(name), name);
  }

  Path write(Path directory) {
    try {
      Files.writeString(directory.resolve("config.json"), config());
      List<String> names = new ArrayList<>(tensors.keySet());
      if (shape.shards == 1) {
        Files.write(directory.resolve("model.safetensors"), file(names));
        return directory;
      }
      StringBuilder map = new StringBuilder();
      for (int shard = 0; shard < shape.shards; shard++) {
        String file = "model-%05d-of-%05d.safetensors".formatted(shard + 1, shape.shards);
        List<String> part = new ArrayList<>();
        for (int i = shard; i < names.size(); i += shape.shards) {
          part.add(names.get(i));
          map.append(map.isEmpty() ? "" : ",").append('"').append(names.get(i));
          map.append("\":\"").append(file).append('"');
        }
        Files.write(directory.resolve(file), file(part));
      }
      Files.writeString(
          directory.resolve("model.safetensors.index.json"),
          "{\"metadata\":{},\"weight_map\":{" + map + "}}");
      return directory;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  String config() {
    return """
    {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": %d,
     "intermediate_size": %d, "num_hidden_layers": %d, "num_attention_heads": %d,
     "num_key_value_heads": %d, "head_dim": %d, "vocab_size": %d,
     "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
     "rope_scaling": %s, "tie_word_embeddings": %b, "attention_bias": %b, "mlp_bias": %b,
     "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": [2, 3]}\
    """
        .formatted(
            shape.hidden,
            shape.wide,
            shape.layers,
            shape.qHeads,
            shape.kvHeads,
            shape.headDim,
            shape.vocab,
            shape.ropeScaling,
            shape.tied,
            shape.biases,
            shape.biases);
  }

  private byte[] file(List<String> names) {
    int width = shape.dtype.equals("F32") ? 4 : 2;
    StringBuilder header = new StringBuilder("{\"__metadata__\":{\"format\":\"pt\"}");
    int at = 0;
    for (String name : names) {
      int bytes = tensor(name).length * width;
      header.append(
          ",\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%d,%d]}"
              .formatted(name, shape.dtype, Arrays.toString(shapes.get(name)), at, at + bytes));
      at += bytes;
    }
    byte[] json = header.append('}').toString().getBytes(StandardCharsets.UTF_8);
    ByteBuffer out = ByteBuffer.allocate(8 + json.length + at).order(ByteOrder.LITTLE_ENDIAN);
    out.putLong(json.length).put(json);
    for (String name : names) {
      for (float value : tensor(name)) {
        switch (shape.dtype) {
          case "F16" -> out.putShort(Float.floatToFloat16(value));
          case "BF16" -> out.putShort((short) (Float.floatToRawIntBits(value) >>> 16));
          default -> out.putFloat(value);
        }
      }
    }
    return out.array();
  }
}
