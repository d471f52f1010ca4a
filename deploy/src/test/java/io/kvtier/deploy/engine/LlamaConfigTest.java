package io.kvtier.deploy.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class LlamaConfigTest {
  private static final String MINIMAL =
      """
      {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
       "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256}\
      """;

  @TempDir Path directory;

  @Test
  void defaultsAreHuggingFaces() throws IOException {
    LlamaConfig config = read(MINIMAL);
    assertThat(config.kvHeads()).isEqualTo(4);
    assertThat(config.headDim()).isEqualTo(16);
    assertThat(config.ropeTheta()).isEqualTo(10000);
    assertThat(config.ropeScaling()).isEqualTo(new RopeScaling.None());
    assertThat(config.tiedEmbeddings()).isFalse();
    assertThat(config.bosId()).isEmpty();
    assertThat(config.eosIds()).isEmpty();
  }

  @Test
  void newerFilesKeepRopeInOnePlace() throws IOException {
    LlamaConfig config =
        read(
            with(
                "\"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": \"llama3\","
                    + " \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4,"
                    + " \"original_max_position_embeddings\": 8192}, \"eos_token_id\": [2, 3]"));
    assertThat(config.ropeTheta()).isEqualTo(500000);
    assertThat(config.ropeScaling()).isEqualTo(new RopeScaling.Llama3(8, 1, 4, 8192));
    assertThat(config.eosIds()).containsExactly(2, 3);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "\"head_dim\": 15 | head_dim is 15, must be even",
        "\"head_dim\": 258 | head_dim is 258, must be within 2 to 256",
        "\"num_key_value_heads\": 3 | must be a multiple of num_key_value_heads 3",
        "\"num_key_value_heads\": 8 | num_key_value_heads is 8, must be within 1 to 4",
        "\"hidden_act\": \"gelu\" | hidden_act is gelu",
        "\"model_type\": \"qwen2\" | model_type qwen2",
        "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2} | rope_type is yarn",
        "\"rope_scaling\": {\"type\": \"linear\"} | factor is absent",
        "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0.5} | factor is 0.5",
        "\"quantization_config\": {} | quantization_config",
        "\"rms_norm_eps\": 0 | rms_norm_eps is 0",
        "\"bos_token_id\": 256 | bos_token_id is 256, must be within 0 to 255",
        "\"eos_token_id\": [\"x\"] | eos_token_id",
      })
  void refusesByNameAndValue(String field, String message) {
    assertThatThrownBy(() -> read(with(field)))
        .isInstanceOf(ModelFormatException.class)
        .hasMessageContaining(message);
  }

  @Test
  void otherArchitecturesAreNamed() {
    assertThatThrownBy(() -> read(MINIMAL.replace("LlamaForCausalLM", "MambaForCausalLM")))
        .hasMessageContaining("MambaForCausalLM");
    assertThatThrownBy(() -> LlamaConfig.read(directory.resolve("absent")))
        .hasMessageContaining("has no config.json");
    assertThatThrownBy(() -> read("{")).hasMessageContaining("not JSON");
    assertThatThrownBy(() -> read(MINIMAL.replace("hidden_size", "hidden")))
        .hasMessageContaining("hidden_size is absent");
  }

  private static String with(String field) {
    return MINIMAL.strip().replaceAll("}$", ", ") + field + "}";
  }

  private LlamaConfig read(String json) throws IOException {
    Files.writeString(directory.resolve("config.json"), json);
    return LlamaConfig.read(directory);
  }
}
