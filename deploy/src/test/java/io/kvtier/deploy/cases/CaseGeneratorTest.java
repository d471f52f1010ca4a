package io.kvtier.deploy.cases;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.deploy.engine.Tokenizer;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class CaseGeneratorTest {
  private static final Path MODEL = Path.of(System.getProperty("kvtier.home"), "deploy", "model");

  private Tokenizer tokenizer;
  private CaseGenerator generator;

  @BeforeEach
  void load() throws IOException {
    tokenizer = Tokenizer.read(MODEL).orElseThrow();
    generator = new CaseGenerator(tokenizer);
  }

  @ParameterizedTest
  @EnumSource(Task.class)
  void contextsHoldTheAnswersWhereTheySay(Task task) {
    for (int length : new int[] {256, 300, 512, 1024, 2048, 8191, 32768, 65536}) {
      for (long seed = 0; seed < 20; seed++) {
        EvalCase made = generator.generate(task, length, seed);
        int[] ids = made.contextIds();
        assertThat(ids).hasSize(length - task.questionTokens);
        assertThat(ids[0]).isEqualTo(1);
        assertThat(made.nKeys()).isEqualTo(CaseGenerator.keys(task, length));
        Set<String> keys = new HashSet<>();
        for (EvalCase.Query query : made.queries()) {
          assertThat(keys.add(query.key())).isTrue();
          assertThat(query.answerIds()).hasSize(2);
          assertThat(query.queryText()).contains(query.key());
          int at = (int) Math.round(query.depth() * ids.length);
          assertThat(Arrays.copyOfRange(ids, at, at + 2))
              .as("%s, seed %d, key %s", made.id(), seed, query.key())
              .containsExactly(query.answerIds());
          String before = tokenizer.decode(Arrays.copyOfRange(ids, Math.max(0, at - 12), at));
          assertThat(before).endsWith(query.key() + (task == Task.KVLIST ? ":" : " is"));
        }
        String text = tokenizer.decode(Arrays.copyOfRange(ids, 1, ids.length));
        assertThat(text.chars().allMatch(c -> c == '\n' || (c >= ' ' && c < 127))).isTrue();
      }
    }
  }

  @Test
  void theSameSeedGivesTheSameIds() {
    EvalCase once = generator.generate(Task.MULTIKEY, 2048, 7);
    EvalCase again = new CaseGenerator(tokenizer).generate(Task.MULTIKEY, 2048, 7);
    assertThat(again.contextIds()).containsExactly(once.contextIds());
    assertThat(again.queries().getFirst().queryIds())
        .containsExactly(once.queries().getFirst().queryIds());
    assertThat(generator.generate(Task.MULTIKEY, 2048, 8).contextIds())
        .isNotEqualTo(once.contextIds());
  }

  @Test
  void templatesAreThoseOfTheModelsEvaluation() {
    EvalCase list = generator.generate(Task.KVLIST, 1024, 3);
    assertThat(tokenizer.decode(list.contextIds()))
        .containsPattern("\nList:( [a-z]+ [a-z]+: \\d{4};){32}\n");
    assertThat(list.queries().getFirst().queryText()).matches("\n Find [a-z]+ [a-z]+:");
    EvalCase keys = generator.generate(Task.MULTIKEY, 1024, 3);
    assertThat(tokenizer.decode(keys.contextIds()))
        .containsPattern("\\. The magic number for [a-z]+ [a-z]+ is \\d{4}\\. [A-Z]");
  }

  @Test
  void refusesLengthsOutOfBounds() {
    assertThatThrownBy(() -> generator.generate(Task.NEEDLE, 255, 1))
        .hasMessageContaining("length is 255, must be within 256 to 1048576");
  }
}
