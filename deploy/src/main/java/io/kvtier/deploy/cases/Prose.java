package io.kvtier.deploy.cases;

import io.kvtier.deploy.engine.Tokenizer;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.random.RandomGenerator;

/**
 * The filler: an essay on the field in which this project lies, cut into sentences. It is ASCII,
 * since the shipped model has seen nothing else and forgets what it read when it meets another
 * byte.
 */
final class Prose {
  private final List<int[]> sentences;

  private Prose(List<int[]> sentences) {
    this.sentences = sentences;
  }

  static Prose load(Tokenizer tokenizer) {
    List<int[]> sentences = new ArrayList<>();
    for (String paragraph : resource("prose.txt").split("\n\n", -1)) {
      String line = paragraph.strip().replace('\n', ' ');
      for (String sentence : line.split("(?<=[.?]) (?=[A-Z])", -1)) {
        sentences.add(tokenizer.encode(" " + sentence));
      }
    }
    return new Prose(List.copyOf(sentences));
  }

  static String resource(String name) {
    try (InputStream in = Prose.class.getResourceAsStream(name)) {
      if (in == null) {
        throw new IllegalStateException("resource " + name + " is missing from the jar");
      }
      return new String(in.readAllBytes(), StandardCharsets.US_ASCII);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /**
   * Sentences that together have exactly {@code tokens} tokens, in shuffled order, the last cut
   * short; when all are used they come again in another order.
   */
  List<int[]> take(int tokens, RandomGenerator random) {
    List<int[]> taken = new ArrayList<>();
    List<int[]> deck = new ArrayList<>();
    int left = tokens;
    while (left > 0) {
      if (deck.isEmpty()) {
        deck.addAll(sentences);
      }
      int[] sentence = deck.remove(random.nextInt(deck.size()));
      if (sentence.length > left) {
        sentence = Arrays.copyOf(sentence, left);
      }
      taken.add(sentence);
      left -= sentence.length;
    }
    return taken;
  }
}
