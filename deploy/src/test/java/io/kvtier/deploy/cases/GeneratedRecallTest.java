package io.kvtier.deploy.cases;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.Tokenizer;
import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Does the shipped model, with everything cached, answer the generated questions? Length and
 * contexts can be raised: -Dkvtier.recall.length=8192 -Dkvtier.recall.contexts=8.
 */
class GeneratedRecallTest {
  private static final Path MODEL = Path.of(System.getProperty("kvtier.home"), "deploy", "model");
  private static final int LENGTH = Integer.getInteger("kvtier.recall.length", 2048);
  private static final int CONTEXTS = Integer.getInteger("kvtier.recall.contexts", 4);

  @ParameterizedTest
  @EnumSource(Task.class)
  void fullCacheAnswersNearlyAll(Task task) throws IOException {
    CaseGenerator generator = new CaseGenerator(Tokenizer.read(MODEL).orElseThrow());
    // A needle context has one question, the others five.
    int contexts = task == Task.NEEDLE ? 4 * CONTEXTS : CONTEXTS;
    Recall recall = new Recall(0, 0);
    try (Decoder decoder = new Decoder(LlamaModel.load(MODEL))) {
      for (long seed = 1; seed <= contexts; seed++) {
        recall = recall.plus(Recall.of(decoder, generator.generate(task, LENGTH, seed)));
      }
    }
    System.out.printf(
        "recall %s at %d: %d of %d%n", task.label(), LENGTH, recall.right(), recall.asked());
    assertThat(recall.ratio())
        .as("%s, seeds 1 to %d: %s", task, contexts, recall)
        .isGreaterThanOrEqualTo(0.95);
  }
}
