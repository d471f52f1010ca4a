package io.kvtier.deploy.cases;

import io.kvtier.deploy.engine.Tokenizer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.random.RandomGenerator;
import java.util.stream.IntStream;

/**
 * Makes cases from a seed, with the templates that the shipped model was trained on, over ASCII
 * prose of this project. The same seed, task, length and tokenizer give the same ids on every
 * machine. Immutable.
 */
public final class CaseGenerator {
  public static final int LENGTH_MIN = 256;
  public static final int LENGTH_MAX = 1 << 20;

  private static final int BOS_ID = 1;
  private static final int QUERIES = 5;

  private final Tokenizer tokenizer;
  private final Prose prose;
  private final List<String> words;

  private record Pair(String key, String value) {}

  /**
   * A generator for one vocabulary.
   *
   * @throws IllegalArgumentException if the vocabulary lacks the key words as single tokens: the
   *     templates are then not those its model knows
   */
  public CaseGenerator(Tokenizer tokenizer) {
    this.tokenizer = tokenizer;
    this.prose = Prose.load(tokenizer);
    this.words = List.of(Prose.resource("keys.txt").strip().split("\\s+", -1));
    for (String word : words) {
      int[] ids = tokenizer.encode(" " + word);
      if (ids.length != 1) {
        throw new IllegalArgumentException(
            "key word '%s' is %d tokens of this vocabulary, must be one; generated cases need the"
                    .formatted(word, ids.length)
                + " shipped model's vocabulary");
      }
    }
  }

  /** Keys in a context: as many as the model's own evaluation has, fewer below 1,024 tokens. */
  public static int keys(Task task, int length) {
    int doublings = Math.clamp(31 - Integer.numberOfLeadingZeros(length), 8, 15) - 8;
    return switch (task) {
      case NEEDLE -> 1;
      case MULTIKEY -> new int[] {4, 8, 16, 24, 32, 48, 64, 64}[doublings];
      case KVLIST -> new int[] {8, 16, 32, 64, 96, 128, 160, 200}[doublings];
    };
  }

  /**
   * Makes one case.
   *
   * @param length nominal tokens of context, question and answer, 256 to 2^20
   */
  public EvalCase generate(Task task, int length, long seed) {
    if (length < LENGTH_MIN || length > LENGTH_MAX) {
      throw new IllegalArgumentException(
          "length is %d, must be within %d to %d".formatted(length, LENGTH_MIN, LENGTH_MAX));
    }
    RandomGenerator random = new SplittableRandom(seed);
    List<Pair> pairs = pairs(task, keys(task, length), random);
    int contextTokens = length - task.questionTokens;
    Context context =
        switch (task) {
          case NEEDLE, MULTIKEY -> scatter(pairs, contextTokens, random);
          case KVLIST -> list(pairs, contextTokens, random);
        };
    List<EvalCase.Query> queries = new ArrayList<>();
    int[] asked = sample(pairs.size(), Math.min(QUERIES, pairs.size()), random);
    for (int index : asked) {
      Pair pair = pairs.get(index);
      String question = question(task, pair.key());
      String answer = " " + pair.value();
      queries.add(
          new EvalCase.Query(
              pair.key(),
              (double) context.answerAt[index] / contextTokens,
              tokenizer.encode(question),
              tokenizer.encode(answer),
              question,
              answer));
    }
    String id = "%s_%d_seed%d".formatted(task.label(), length, seed);
    return new EvalCase(id, task.label(), length, pairs.size(), context.ids, queries);
  }

  private static String question(Task task, String key) {
    return switch (task) {
      case NEEDLE, MULTIKEY ->
          "\n Question: What is the magic number for %s?\n Answer: The magic number for %s is"
              .formatted(key, key);
      case KVLIST -> "\n Find %s:".formatted(key);
    };
  }

  /** Distinct keys; those of more than one word differ in their second word. */
  private List<Pair> pairs(Task task, int count, RandomGenerator random) {
    boolean single = task == Task.NEEDLE && random.nextBoolean();
    int[] second = sample(words.size(), count, random);
    Set<String> values = new LinkedHashSet<>();
    while (values.size() < count) {
      int value = random.nextInt(10_000);
      values.add("" + value / 1000 + value / 100 % 10 + value / 10 % 10 + value % 10);
    }
    List<String> digits = List.copyOf(values);
    List<Pair> pairs = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      String word = words.get(second[i]);
      // Another word than the second, without drawing again.
      int first = (second[i] + 1 + random.nextInt(words.size() - 1)) % words.size();
      pairs.add(new Pair(single ? word : words.get(first) + " " + word, digits.get(i)));
    }
    return pairs;
  }

  private static int[] sample(int from, int count, RandomGenerator random) {
    int[] order = IntStream.range(0, from).toArray();
    for (int i = 0; i < count; i++) {
      int other = i + random.nextInt(from - i);
      int kept = order[i];
      order[i] = order[other];
      order[other] = kept;
    }
    return Arrays.copyOf(order, count);
  }

  /** Puts one sentence for each pair after sentences of the filler drawn at random. */
  private Context scatter(List<Pair> pairs, int tokens, RandomGenerator random) {
    List<int[]> needles = new ArrayList<>();
    int hidden = 0;
    for (Pair pair : pairs) {
      int[] needle =
          tokenizer.encode(" The magic number for %s is %s.".formatted(pair.key(), pair.value()));
      needles.add(needle);
      hidden += needle.length;
    }
    Context context = new Context(tokens, pairs.size());
    List<int[]> filler = prose.take(tokens - 1 - hidden, random);
    // The last sentence is cut short, so no needle follows it.
    int[] gaps = new int[pairs.size()];
    for (int i = 0; i < gaps.length; i++) {
      gaps[i] = random.nextInt(Math.max(1, filler.size() - 1));
    }
    for (int gap = 0; gap < filler.size(); gap++) {
      context.add(filler.get(gap));
      for (int i = 0; i < gaps.length; i++) {
        if (gaps[i] == gap) {
          context.add(needles.get(i));
          // Before the answer's two tokens and the full stop.
          context.answerAt[i] = context.used - 3;
        }
      }
    }
    return context;
  }

  /** Puts all pairs as one list between two sentences of the filler. */
  private Context list(List<Pair> pairs, int tokens, RandomGenerator random) {
    int[] opening = tokenizer.encode("\nList:");
    int[] closing = tokenizer.encode("\n");
    List<int[]> entries = new ArrayList<>();
    int listed = opening.length + closing.length;
    for (Pair pair : pairs) {
      int[] entry = tokenizer.encode(" %s: %s;".formatted(pair.key(), pair.value()));
      entries.add(entry);
      listed += entry.length;
    }
    Context context = new Context(tokens, pairs.size());
    List<int[]> filler = prose.take(tokens - 1 - listed, random);
    int after = random.nextInt(Math.max(1, filler.size() - 1));
    for (int gap = 0; gap < filler.size(); gap++) {
      context.add(filler.get(gap));
      if (gap == after) {
        context.add(opening);
        for (int i = 0; i < entries.size(); i++) {
          context.add(entries.get(i));
          // Before the answer's two tokens and the semicolon.
          context.answerAt[i] = context.used - 3;
        }
        context.add(closing);
      }
    }
    return context;
  }

  /** A context being filled: ids, how many are there, and where each pair's value starts. */
  private static final class Context {
    final int[] ids;
    final int[] answerAt;
    int used;

    Context(int tokens, int pairs) {
      ids = new int[tokens];
      answerAt = new int[pairs];
      ids[used++] = BOS_ID;
    }

    void add(int[] more) {
      System.arraycopy(more, 0, ids, used, more.length);
      used += more.length;
    }
  }
}
