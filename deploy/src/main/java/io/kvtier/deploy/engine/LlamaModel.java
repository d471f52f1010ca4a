package io.kvtier.deploy.engine;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * The weights of a Llama model in fp32. Immutable; decoders on any number of threads may share it.
 */
public final class LlamaModel {
  private static final int FINGERPRINT_BYTES = 16;

  private final LlamaConfig config;
  private final byte[] fingerprint;
  private final float[] embeddings;
  private final List<LlamaLayer> layers;
  private final RmsNorm finalNorm;
  private final Linear head;
  private final Rope rope;

  private LlamaModel(LlamaConfig config, Safetensors tensors) {
    this.config = config;
    this.fingerprint = fingerprint(config, tensors);
    int hidden = config.hiddenSize();
    int vocab = config.vocabSize();
    this.embeddings = tensors.floats("model.embed_tokens.weight", vocab, hidden);
    List<LlamaLayer> read = new ArrayList<>();
    for (int layer = 0; layer < config.layers(); layer++) {
      read.add(LlamaLayer.read(tensors, config, layer));
    }
    this.layers = List.copyOf(read);
    this.finalNorm = LlamaLayer.norm(tensors, "model.norm.weight", config);
    float[] output =
        config.tiedEmbeddings() ? embeddings : tensors.floats("lm_head.weight", vocab, hidden);
    this.head = new Linear(hidden, vocab, output, null);
    this.rope = new Rope(config);
  }

  /**
   * Reads config.json and the safetensors files of a directory.
   *
   * @throws ModelFormatException if the directory is damaged, incomplete or not a Llama model
   */
  public static LlamaModel load(Path directory) throws IOException {
    LlamaConfig config = LlamaConfig.read(directory);
    try (Safetensors tensors = Safetensors.open(directory)) {
      return new LlamaModel(config, tensors);
    }
  }

  /** The model's shape. */
  public LlamaConfig config() {
    return config;
  }

  /**
   * 16 bytes that tell models apart: the first half of SHA-256 over every field of the
   * configuration that changes keys or values, and every tensor's name, type, shape and bytes.
   * Sharding and the order of tensors in a file do not change it; another precision of the same
   * weights does.
   */
  public byte[] fingerprint() {
    return fingerprint.clone();
  }

  private static byte[] fingerprint(LlamaConfig config, Safetensors tensors) {
    try {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      String fields =
          "llama hidden=%d wide=%d layers=%d q=%d kv=%d dim=%d vocab=%d eps=%s theta=%s rope=%s tied=%b\n"
              .formatted(
                  config.hiddenSize(),
                  config.intermediateSize(),
                  config.layers(),
                  config.qHeads(),
                  config.kvHeads(),
                  config.headDim(),
                  config.vocabSize(),
                  config.rmsNormEps(),
                  config.ropeTheta(),
                  config.ropeScaling(),
                  config.tiedEmbeddings());
      digest.update(fields.getBytes(StandardCharsets.UTF_8));
      tensors.digest(digest);
      return Arrays.copyOf(digest.digest(), FINGERPRINT_BYTES);
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java runtime has SHA-256", e);
    }
  }

  /** Copies one token's embedding to {@code x} at {@code at}. */
  void embed(int id, float[] x, int at) {
    if (id < 0 || id >= config.vocabSize()) {
      throw new IllegalArgumentException(
          "token id " + id + " is not within 0 to " + (config.vocabSize() - 1));
    }
    System.arraycopy(embeddings, id * config.hiddenSize(), x, at, config.hiddenSize());
  }

  LlamaLayer layer(int layer) {
    return layers.get(layer);
  }

  RmsNorm finalNorm() {
    return finalNorm;
  }

  Linear head() {
    return head;
  }

  Rope rope() {
    return rope;
  }
}
