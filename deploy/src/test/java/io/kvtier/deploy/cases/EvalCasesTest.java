package io.kvtier.deploy.cases;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class EvalCasesTest {
  private static final String LINE =
      "{\"id\":\"a\",\"task\":\"needle\",\"length\":256,\"n_keys\":1,\"context_ids\":[1,5,6],"
          + "\"queries\":[{\"key\":\"k\",\"depth\":0.5,\"query_ids\":[7],\"answer_ids\":[8,9],"
          + "\"query_text\":\"q\",\"answer_text\":\"r\"}]}";

  @TempDir Path directory;

  @Test
  void readsEveryField() throws IOException {
    List<EvalCase> cases = read(LINE + "\n\n" + LINE);
    assertThat(cases).hasSize(2);
    EvalCase first = cases.getFirst();
    assertThat(first.contextIds()).containsExactly(1, 5, 6);
    assertThat(first.length()).isEqualTo(256);
    EvalCase.Query query = first.queries().getFirst();
    assertThat(query.answerIds()).containsExactly(8, 9);
    assertThat(query.depth()).isEqualTo(0.5);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "[1,5,6] | [1,5,10] | context_ids has 10 at 2, must be within 0 to 9",
        "[1,5,6] | [1,-5] | context_ids has -5 at 1",
        "[1,5,6] | [] | context_ids must be an array of 1 to",
        "[7] | 7 | query_ids must be an array",
        "\"length\":256 | \"length\":0 | length is 0",
        "\"depth\":0.5 | \"depth\":1.5 | depth is 1.5",
        "\"key\":\"k\" | \"key\":3 | key must be a string",
        "\"queries\" | \"query\" | queries must be an array",
        "{\"id\" | {\"id | not JSON",
      })
  void namesFileLineAndField(String found, String broken, String message) {
    assertThatThrownBy(() -> read(LINE + "\n" + LINE.replace(found, broken)))
        .isInstanceOf(CaseFormatException.class)
        .hasMessageStartingWith("cases.jsonl line 2: ")
        .hasMessageContaining(message);
  }

  @Test
  void anEmptyFileHoldsNoCases() {
    assertThatThrownBy(() -> read("\n")).hasMessageContaining("holds no cases");
  }

  private List<EvalCase> read(String text) throws IOException {
    Path file = directory.resolve("cases.jsonl");
    Files.writeString(file, text);
    return EvalCases.read(file, 10);
  }
}
