package io.kvtier.deploy.demo;

import io.kvtier.deploy.cases.CaseGenerator;
import io.kvtier.deploy.cases.EvalCase;
import io.kvtier.deploy.cases.EvalCases;
import io.kvtier.deploy.cases.Task;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.deploy.engine.Tokenizer;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;

/**
 * Where the demo's cases come from: a file, the generator, or random tokens for a model whose
 * tokenizer is not ours.
 */
final class CaseSource {
  /** Task of contexts of random tokens: they have no right answer, only agreement can be told. */
  static final String RANDOM = "random";

  private static final int RANDOM_QUERY_TOKENS = 8;
  private static final int RANDOM_ANSWER_TOKENS = 8;

  /** Contexts of one task and length. */
  record Group(String task, int length, List<EvalCase> contexts) {}

  private CaseSource() {}

  static List<Group> groups(DemoConfig config, LlamaConfig model, Optional<Tokenizer> tokenizer)
      throws IOException {
    if (config.evalFile().isPresent()) {
      return fromFile(config, model);
    }
    List<Group> groups = new ArrayList<>();
    for (int length : config.lengths()) {
      if (tokenizer.isPresent()) {
        CaseGenerator generator = new CaseGenerator(tokenizer.get());
        for (Task task : Task.values()) {
          groups.add(generated(generator, task, length, config));
        }
      } else {
        groups.add(random(config, model, length));
      }
    }
    return groups;
  }

  private static List<Group> fromFile(DemoConfig config, LlamaConfig model) throws IOException {
    Map<String, Group> groups = new LinkedHashMap<>();
    for (EvalCase context : EvalCases.read(config.evalFile().orElseThrow(), model.vocabSize())) {
      groups
          .computeIfAbsent(
              context.task() + context.length(),
              key -> new Group(context.task(), context.length(), new ArrayList<>()))
          .contexts()
          .add(context);
    }
    return groups.values().stream()
        .map(group -> limited(group.task(), group.length(), group.contexts(), config.cases()))
        .toList();
  }

  private static Group generated(
      CaseGenerator generator, Task task, int length, DemoConfig config) {
    List<EvalCase> contexts = new ArrayList<>();
    int questions = 0;
    for (int i = 0; questions < config.cases(); i++) {
      EvalCase context = generator.generate(task, length, config.seed() * 1_000_003 + i);
      contexts.add(context);
      questions += context.queries().size();
    }
    return limited(task.label(), length, contexts, config.cases());
  }

  /** Keeps the first {@code cases} questions. */
  private static Group limited(String task, int length, List<EvalCase> contexts, int cases) {
    List<EvalCase> kept = new ArrayList<>();
    int left = cases;
    for (EvalCase context : contexts) {
      int n = Math.min(left, context.queries().size());
      if (n > 0) {
        kept.add(
            new EvalCase(
                context.id(),
                context.task(),
                context.length(),
                context.nKeys(),
                context.contextIds(),
                context.queries().subList(0, n)));
      }
      left -= n;
    }
    return new Group(task, length, kept);
  }

  private static Group random(DemoConfig config, LlamaConfig model, int length) {
    List<EvalCase> contexts = new ArrayList<>();
    for (int i = 0; i < config.cases(); i++) {
      SplittableRandom random = new SplittableRandom(config.seed() * 1_000_003 + i);
      int[] ids = random.ints(length, 0, model.vocabSize()).toArray();
      model.bosId().ifPresent(bos -> ids[0] = bos);
      int[] query = random.ints(RANDOM_QUERY_TOKENS, 0, model.vocabSize()).toArray();
      contexts.add(
          new EvalCase(
              RANDOM + "-" + length + "-" + i,
              RANDOM,
              length,
              0,
              ids,
              List.of(new EvalCase.Query("", 0, query, new int[RANDOM_ANSWER_TOKENS], "", ""))));
    }
    return new Group(RANDOM, length, contexts);
  }
}
