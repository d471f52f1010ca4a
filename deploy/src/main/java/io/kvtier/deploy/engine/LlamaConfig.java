package io.kvtier.deploy.engine;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalInt;
import org.jspecify.annotations.Nullable;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * The shape of a Llama model, as Hugging Face's config.json names it.
 *
 * @param layers num_hidden_layers
 * @param qHeads num_attention_heads
 * @param kvHeads num_key_value_heads, {@code qHeads} where the file has none
 * @param headDim head_dim, hidden_size / num_attention_heads where the file has none
 * @param maxPositions max_position_embeddings: a statement about training, not enforced
 * @param attentionBias whether q, k, v and o projections have biases
 * @param mlpBias whether gate, up and down projections have biases
 */
public record LlamaConfig(
    int hiddenSize,
    int intermediateSize,
    int layers,
    int qHeads,
    int kvHeads,
    int headDim,
    int vocabSize,
    int maxPositions,
    double rmsNormEps,
    double ropeTheta,
    RopeScaling ropeScaling,
    boolean tiedEmbeddings,
    boolean attentionBias,
    boolean mlpBias,
    OptionalInt bosId,
    List<Integer> eosIds) {

  static final int HEAD_DIM_MAX = 256;
  private static final long CONFIG_BYTES_MAX = 1 << 20;

  public LlamaConfig {
    within("hidden_size", hiddenSize, 1, 1 << 16);
    within("intermediate_size", intermediateSize, 1, 1 << 18);
    within("num_hidden_layers", layers, 1, 1024);
    within("num_attention_heads", qHeads, 1, 1024);
    within("num_key_value_heads", kvHeads, 1, qHeads);
    within("head_dim", headDim, 2, HEAD_DIM_MAX);
    within("vocab_size", vocabSize, 1, 1 << 20);
    within("max_position_embeddings", maxPositions, 1, 1 << 28);
    if (headDim % 2 != 0) {
      throw new ModelFormatException(
          "config.json: head_dim is " + headDim + ", must be even: RoPE turns pairs of dimensions");
    }
    if (qHeads % kvHeads != 0) {
      throw new ModelFormatException(
          "config.json: num_attention_heads %d must be a multiple of num_key_value_heads %d"
              .formatted(qHeads, kvHeads));
    }
    if (!(rmsNormEps > 0 && rmsNormEps < 1)) {
      throw new ModelFormatException(
          "config.json: rms_norm_eps is " + rmsNormEps + ", must be between 0 and 1");
    }
    if (!(ropeTheta > 1 && ropeTheta < 1e12)) {
      throw new ModelFormatException(
          "config.json: rope_theta is " + ropeTheta + ", must be between 1 and 1e12");
    }
    long largest = (long) hiddenSize * Math.max(vocabSize, intermediateSize);
    if (largest > Integer.MAX_VALUE - 64L * hiddenSize) {
      throw new ModelFormatException(
          "config.json: the largest matrix has %d values, must be below 2^31; use a smaller model"
              .formatted(largest));
    }
    if (bosId.isPresent()) {
      within("bos_token_id", bosId.getAsInt(), 0, vocabSize - 1);
    }
    eosIds = List.copyOf(eosIds);
    for (int id : eosIds) {
      within("eos_token_id", id, 0, vocabSize - 1);
    }
  }

  /** q heads that share a KV head. */
  public int group() {
    return qHeads / kvHeads;
  }

  /** Values of one token's queries. */
  public int qWidth() {
    return qHeads * headDim;
  }

  /** Values of one token's keys, or of its values, in one layer. */
  public int kvWidth() {
    return kvHeads * headDim;
  }

  /** Reads config.json of a model directory. */
  public static LlamaConfig read(Path directory) throws IOException {
    Path file = directory.resolve("config.json");
    if (!Files.isRegularFile(file)) {
      throw new ModelFormatException(
          directory + " has no config.json: give a Hugging Face model directory");
    }
    long bytes = Files.size(file);
    if (bytes > CONFIG_BYTES_MAX) {
      throw new ModelFormatException(
          "config.json has %d bytes, at most %d are read".formatted(bytes, CONFIG_BYTES_MAX));
    }
    try {
      return parse(JsonMapper.shared().readTree(Files.readString(file)));
    } catch (JacksonException e) {
      throw new ModelFormatException("config.json is not JSON: " + e.getOriginalMessage(), e);
    }
  }

  private static LlamaConfig parse(JsonNode root) {
    if (!root.isObject()) {
      throw new ModelFormatException("config.json: must hold an object");
    }
    checkArchitecture(root);
    int hidden = integer(root, "hidden_size", null);
    int qHeads = integer(root, "num_attention_heads", null);
    JsonNode rope = present(root, "rope_parameters") ? root.path("rope_parameters") : root;
    JsonNode scaling = present(root, "rope_parameters") ? rope : root.path("rope_scaling");
    JsonNode theta = present(rope, "rope_theta") ? rope : root;
    return new LlamaConfig(
        hidden,
        integer(root, "intermediate_size", null),
        integer(root, "num_hidden_layers", null),
        qHeads,
        integer(root, "num_key_value_heads", qHeads),
        integer(root, "head_dim", hidden / Math.max(1, qHeads)),
        integer(root, "vocab_size", null),
        integer(root, "max_position_embeddings", 2048),
        number(root, "rms_norm_eps", 1e-6),
        number(theta, "rope_theta", 10000.0),
        scaling(scaling),
        flag(root, "tie_word_embeddings"),
        flag(root, "attention_bias"),
        flag(root, "mlp_bias"),
        present(root, "bos_token_id")
            ? OptionalInt.of(integer(root, "bos_token_id", null))
            : OptionalInt.empty(),
        ids(root.path("eos_token_id")));
  }

  private static void checkArchitecture(JsonNode root) {
    JsonNode named = root.path("architectures").path(0);
    String architecture = named.isString() ? named.stringValue() : "none named";
    String type = root.path("model_type").isString() ? root.path("model_type").stringValue() : "";
    if (!architecture.equals("LlamaForCausalLM") || !(type.isEmpty() || type.equals("llama"))) {
      throw new ModelFormatException(
          "config.json: architecture is %s (model_type %s), only LlamaForCausalLM (llama) runs here"
              .formatted(architecture, type.isEmpty() ? "none" : type));
    }
    JsonNode activation = root.path("hidden_act");
    if (activation.isString() && !activation.stringValue().equals("silu")) {
      throw new ModelFormatException(
          "config.json: hidden_act is " + activation.stringValue() + ", only silu runs here");
    }
    if (present(root, "quantization_config")) {
      throw new ModelFormatException(
          "config.json: has a quantization_config; give the unquantized weights (F32, F16 or"
              + " BF16)");
    }
  }

  private static RopeScaling scaling(JsonNode node) {
    if (!node.isObject()) {
      return new RopeScaling.None();
    }
    JsonNode kind = present(node, "rope_type") ? node.path("rope_type") : node.path("type");
    String type = kind.isString() ? kind.stringValue() : "default";
    return switch (type) {
      case "default" -> new RopeScaling.None();
      case "linear" -> new RopeScaling.Linear(number(node, "factor", null));
      case "llama3" ->
          new RopeScaling.Llama3(
              number(node, "factor", null),
              number(node, "low_freq_factor", null),
              number(node, "high_freq_factor", null),
              integer(node, "original_max_position_embeddings", null));
      default ->
          throw new ModelFormatException(
              "config.json: rope_type is %s, only default, linear and llama3 run here"
                  .formatted(type));
    };
  }

  private static List<Integer> ids(JsonNode node) {
    List<Integer> ids = new ArrayList<>();
    if (node.isIntegralNumber()) {
      ids.add(node.intValue());
    }
    for (JsonNode id : node.isArray() ? node.values() : List.<JsonNode>of()) {
      if (!id.isIntegralNumber()) {
        throw new ModelFormatException(
            "config.json: eos_token_id holds " + id + ", not an integer");
      }
      ids.add(id.intValue());
    }
    return ids;
  }

  private static boolean present(JsonNode node, String name) {
    JsonNode value = node.path(name);
    return !value.isMissingNode() && !value.isNull();
  }

  private static int integer(JsonNode node, String name, @Nullable Integer otherwise) {
    JsonNode value = node.path(name);
    if (value.canConvertToInt() && value.isIntegralNumber()) {
      return value.intValue();
    }
    if (otherwise == null || present(node, name)) {
      throw new ModelFormatException(
          "config.json: %s is %s, must be an integer"
              .formatted(name, present(node, name) ? value : "absent"));
    }
    return otherwise;
  }

  private static double number(JsonNode node, String name, @Nullable Double otherwise) {
    JsonNode value = node.path(name);
    if (value.isNumber()) {
      return value.doubleValue();
    }
    if (otherwise == null || present(node, name)) {
      throw new ModelFormatException(
          "config.json: %s is %s, must be a number"
              .formatted(name, present(node, name) ? value : "absent"));
    }
    return otherwise;
  }

  private static boolean flag(JsonNode node, String name) {
    JsonNode value = node.path(name);
    if (value.isBoolean()) {
      return value.booleanValue();
    }
    if (present(node, name)) {
      throw new ModelFormatException(
          "config.json: " + name + " is " + value + ", must be a boolean");
    }
    return false;
  }

  private static void within(String name, int value, int least, int most) {
    if (value < least || value > most) {
      throw new ModelFormatException(
          "config.json: %s is %d, must be within %d to %d: the file is damaged or the model too large"
              .formatted(name, value, least, most));
    }
  }
}
