package io.kvtier.deploy.cases;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.LlamaModel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The model's own evaluation, where its files lie beside the repository. */
class EvaluationFilesTest {
  private static final Path HOME = Path.of(System.getProperty("kvtier.home"));
  private static final Path MODEL = HOME.resolve("deploy").resolve("model");
  private static final Path EVAL = HOME.resolveSibling("shared").resolve("model").resolve("eval");
  private static final int CONTEXTS = Integer.getInteger("kvtier.recall.contexts", 4);

  @ParameterizedTest
  @ValueSource(strings = {"needle_2k", "multikey_2k", "kvlist_2k"})
  void fullCacheAnswersNearlyAll(String name) throws IOException {
    Path file = EVAL.resolve(name + ".jsonl");
    assumeTrue(
        Files.isRegularFile(file),
        "not run: the evaluation files are not beside the repository (shared/model/eval)");
    Recall recall = new Recall(0, 0);
    try (Decoder decoder = new Decoder(LlamaModel.load(MODEL))) {
      List<EvalCase> cases = EvalCases.read(file, decoder.model().config().vocabSize());
      int contexts = Math.min(cases.size(), name.startsWith("needle") ? 4 * CONTEXTS : CONTEXTS);
      for (EvalCase evalCase : cases.subList(0, contexts)) {
        recall = recall.plus(Recall.of(decoder, evalCase));
      }
    }
    System.out.printf("recall %s: %d of %d%n", name, recall.right(), recall.asked());
    assertThat(recall.ratio()).as("%s: %s", name, recall).isGreaterThanOrEqualTo(0.95);
  }
}
