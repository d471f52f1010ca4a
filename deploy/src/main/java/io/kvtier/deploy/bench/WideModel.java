package io.kvtier.deploy.bench;

import io.kvtier.deploy.engine.LlamaModel;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.StringJoiner;

/**
 * One layer of Llama-3.1-8B's shape with random weights: it says nothing, but computes and keeps as
 * much for each token as a layer of that model does. 218 M weights, .9 GB in fp32.
 */
final class WideModel {
  static final int VOCAB = 512;
  private static final int HIDDEN = 4096;
  private static final int WIDE = 14_336;
  private static final int KV_WIDTH = 1024;
  private static final int BUFFER_BYTES = 1 << 20;

  private static final String CONFIG =
      """
      {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
       "hidden_size": %d, "intermediate_size": %d, "num_hidden_layers": 1,
       "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": %d,
       "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
       "tie_word_embeddings": true}
      """
          .formatted(HIDDEN, WIDE, VOCAB);

  private WideModel() {}

  /** Writes the model to a directory of the system's for such files, loads it, and removes it. */
  static LlamaModel load() throws IOException {
    Path directory = Files.createTempDirectory("kvtier-wide-");
    Path config = directory.resolve("config.json");
    Path weights = directory.resolve("model.safetensors");
    try {
      Files.writeString(config, CONFIG);
      writeWeights(weights);
      return LlamaModel.load(directory);
    } finally {
      Files.deleteIfExists(weights);
      Files.deleteIfExists(config);
      Files.delete(directory);
    }
  }

  /** {@code [outputs][inputs]} of each matrix, {@code [1][hidden]} of norms. */
  private static Map<String, int[]> shapes() {
    Map<String, int[]> shapes = new LinkedHashMap<>();
    String layer = "model.layers.0.";
    shapes.put("model.embed_tokens.weight", new int[] {VOCAB, HIDDEN});
    shapes.put(layer + "self_attn.q_proj.weight", new int[] {HIDDEN, HIDDEN});
    shapes.put(layer + "self_attn.k_proj.weight", new int[] {KV_WIDTH, HIDDEN});
    shapes.put(layer + "self_attn.v_proj.weight", new int[] {KV_WIDTH, HIDDEN});
    shapes.put(layer + "self_attn.o_proj.weight", new int[] {HIDDEN, HIDDEN});
    shapes.put(layer + "mlp.gate_proj.weight", new int[] {WIDE, HIDDEN});
    shapes.put(layer + "mlp.up_proj.weight", new int[] {WIDE, HIDDEN});
    shapes.put(layer + "mlp.down_proj.weight", new int[] {HIDDEN, WIDE});
    shapes.put(layer + "input_layernorm.weight", new int[] {1, HIDDEN});
    shapes.put(layer + "post_attention_layernorm.weight", new int[] {1, HIDDEN});
    shapes.put("model.norm.weight", new int[] {1, HIDDEN});
    return shapes;
  }

  private static void writeWeights(Path file) throws IOException {
    Map<String, int[]> shapes = shapes();
    byte[] header = header(shapes).getBytes(StandardCharsets.UTF_8);
    ByteBuffer out = ByteBuffer.allocateDirect(BUFFER_BYTES).order(ByteOrder.LITTLE_ENDIAN);
    SplittableRandom random = new SplittableRandom(1);
    try (FileChannel channel =
        FileChannel.open(file, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
      out.putLong(header.length).put(header);
      for (int[] shape : shapes.values()) {
        // A norm's weights are one; a matrix' of variance 1 / inputs, so that values keep theirs.
        boolean norm = shape[0] == 1;
        float scale = norm ? 0 : (float) Math.sqrt(3.0 / shape[1]) * 0x1p-31f;
        for (long i = (long) shape[0] * shape[1]; i > 0; i--) {
          if (out.remaining() < Short.BYTES) {
            drain(out, channel);
          }
          float weight = norm ? 1 : random.nextInt() * scale;
          out.putShort((short) (Float.floatToRawIntBits(weight) >>> Short.SIZE));
        }
      }
      drain(out, channel);
    }
  }

  private static void drain(ByteBuffer out, FileChannel channel) throws IOException {
    out.flip();
    while (out.hasRemaining()) {
      channel.write(out);
    }
    out.clear();
  }

  private static String header(Map<String, int[]> shapes) {
    StringJoiner header = new StringJoiner(",", "{", "}");
    long at = 0;
    for (Map.Entry<String, int[]> tensor : shapes.entrySet()) {
      int[] shape = tensor.getValue();
      String extents = shape[0] == 1 ? "" + shape[1] : shape[0] + "," + shape[1];
      long end = at + (long) shape[0] * shape[1] * Short.BYTES;
      header.add(
          "\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%d,%d]}"
              .formatted(tensor.getKey(), extents, at, end));
      at = end;
    }
    return header.toString();
  }
}
