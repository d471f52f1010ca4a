package io.kvtier.deploy.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

class ShippedModelTest {
  private static final Path MODEL = Path.of(System.getProperty("kvtier.home"), "deploy", "model");

  @TempDir Path directory;

  @Test
  void reproducesItsReferenceLogits() throws IOException {
    try (Decoder decoder = new Decoder(LlamaModel.load(MODEL))) {
      ReferenceLogits.Report report = ReferenceLogits.read(MODEL).orElseThrow().check(decoder);
      assertThat(report.prompts()).isEqualTo(3);
      assertThat(report.maxDifference()).isLessThan(ReferenceLogits.TOLERANCE);
    }
  }

  @Test
  void aWrongReferenceIsAMismatchWithValues() throws IOException {
    String json = Files.readString(MODEL.resolve("reference_logits.json"));
    Path file = directory.resolve("reference_logits.json");
    try (Decoder decoder = new Decoder(LlamaModel.load(MODEL))) {
      Files.writeString(file, json.replace("-6.715069", "-6.725069"));
      ReferenceLogits logits = ReferenceLogits.read(directory).orElseThrow();
      assertThatThrownBy(() -> logits.check(decoder))
          .isInstanceOf(ReferenceMismatchException.class)
          .hasMessageContaining("prompt 0: logit 0 is -6.715")
          .hasMessageContaining("reference has -6.725069");
      Files.writeString(file, json.replace("\"greedy16_ids\": [544,", "\"greedy16_ids\": [545,"));
      ReferenceLogits tokens = ReferenceLogits.read(directory).orElseThrow();
      assertThatThrownBy(() -> tokens.check(decoder)).hasMessageContaining("greedy tokens");
      Files.writeString(file, "[{\"ids\": [1]}]");
      assertThatThrownBy(() -> ReferenceLogits.read(directory)).hasMessageContaining("last_logits");
    }
  }

  @Test
  void aDirectoryWithoutTheFilesIsNotCheckedAndHasNoTokenizer() throws IOException {
    assertThat(ReferenceLogits.read(directory)).isEmpty();
    assertThat(Tokenizer.read(directory)).isEmpty();
  }

  @Test
  void tokenizerGivesTheExpectedIds() throws IOException {
    Tokenizer tokenizer = Tokenizer.read(MODEL).orElseThrow();
    assertThat(tokenizer.vocabSize()).isEqualTo(1536);
    JsonNode cases =
        JsonMapper.shared().readTree(Files.readString(MODEL.resolve("tokenizer_cases.json")));
    assertThat(cases.size()).isEqualTo(5);
    for (JsonNode node : cases.values()) {
      String text = node.path("text").stringValue();
      int[] ids =
          IntStream.range(0, node.path("ids").size())
              .map(i -> node.path("ids").path(i).intValue())
              .toArray();
      assertThat(tokenizer.encode(text)).as(text).containsExactly(ids);
      assertThat(tokenizer.decode(ids)).isEqualTo(text);
    }
    assertThat(tokenizer.encode("")).isEmpty();
    assertThatThrownBy(() -> tokenizer.decode(1536)).hasMessageContaining("1536");
  }

  @Test
  void aDamagedVocabularyIsRefusedByLine() throws IOException {
    String hex = Files.readString(MODEL.resolve("vocab.hex"));
    Path file = directory.resolve("vocab.hex");
    Files.writeString(file, hex.replaceFirst("\n0a\n", "\n0b\n"));
    assertThatThrownBy(() -> Tokenizer.read(directory)).hasMessageContaining("line 11");
    Files.writeString(file, hex.replaceFirst("\n0a\n", "\nzz\n"));
    assertThatThrownBy(() -> Tokenizer.read(directory)).hasMessageContaining("not hexadecimal");
    Files.writeString(file, "00\n01\n");
    assertThatThrownBy(() -> Tokenizer.read(directory)).hasMessageContaining("2 lines");
  }
}
