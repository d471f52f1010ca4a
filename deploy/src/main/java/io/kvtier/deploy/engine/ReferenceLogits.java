package io.kvtier.deploy.engine;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * Logits that another implementation computed for a model, from reference_logits.json: a list of
 * {@code {text, ids, last_logits, greedy16_ids}}, ids with the beginning-of-sequence token.
 */
public final class ReferenceLogits {
  /**
   * Largest accepted difference of a logit: two orders of addition differ by less, a bug by more.
   */
  public static final double TOLERANCE = 1e-3;

  private static final long FILE_BYTES_MAX = 64 << 20;
  private static final int IDS_MAX = 1 << 16;

  /** What a check found. */
  public record Report(int prompts, double maxDifference) {}

  private static final class Prompt {
    final int[] ids;
    final float[] logits;
    final int[] greedy;

    Prompt(int[] ids, float[] logits, int[] greedy) {
      this.ids = ids;
      this.logits = logits;
      this.greedy = greedy;
    }
  }

  private final List<Prompt> prompts;

  private ReferenceLogits(List<Prompt> prompts) {
    this.prompts = prompts;
  }

  /**
   * Reads the file of a model directory; empty where there is none, so that nothing can be checked.
   */
  public static Optional<ReferenceLogits> read(Path directory) throws IOException {
    Path file = directory.resolve("reference_logits.json");
    if (!Files.isRegularFile(file)) {
      return Optional.empty();
    }
    if (Files.size(file) > FILE_BYTES_MAX) {
      throw new ModelFormatException(
          "reference_logits.json has %d bytes, at most %d are read"
              .formatted(Files.size(file), FILE_BYTES_MAX));
    }
    try {
      JsonNode root = JsonMapper.shared().readTree(Files.readString(file));
      List<Prompt> prompts = new ArrayList<>();
      for (JsonNode node : root.values()) {
        float[] logits = new float[array(node, "last_logits").size()];
        for (int i = 0; i < logits.length; i++) {
          logits[i] = node.path("last_logits").path(i).floatValue();
        }
        prompts.add(new Prompt(ids(node, "ids"), logits, ids(node, "greedy16_ids")));
      }
      if (prompts.isEmpty()) {
        throw new ModelFormatException("reference_logits.json holds no prompts");
      }
      return Optional.of(new ReferenceLogits(List.copyOf(prompts)));
    } catch (JacksonException e) {
      throw new ModelFormatException(
          "reference_logits.json is damaged: " + e.getOriginalMessage(), e);
    }
  }

  private static JsonNode array(JsonNode node, String name) {
    JsonNode array = node.path(name);
    if (!array.isArray() || array.isEmpty() || array.size() > 1 << 20) {
      throw new ModelFormatException(
          "reference_logits.json: " + name + " must be an array of 1 to 2^20 numbers");
    }
    return array;
  }

  private static int[] ids(JsonNode node, String name) {
    JsonNode array = array(node, name);
    if (array.size() > IDS_MAX) {
      throw new ModelFormatException(
          "reference_logits.json: %s has %d ids, at most %d"
              .formatted(name, array.size(), IDS_MAX));
    }
    int[] ids = new int[array.size()];
    Arrays.setAll(ids, i -> array.path(i).intValue());
    return ids;
  }

  /**
   * Runs every prompt and compares.
   *
   * @return the largest difference of a logit, at most {@link #TOLERANCE}
   * @throws ReferenceMismatchException if a logit differs by more, or a greedy token differs
   */
  public Report check(Decoder decoder) {
    double worst = 0;
    for (int p = 0; p < prompts.size(); p++) {
      Prompt prompt = prompts.get(p);
      FullKvCache cache = new FullKvCache(decoder.model().config());
      float[] logits = decoder.prefill(cache, prompt.ids, 0, Prefill.Progress.NONE).logits();
      worst = Math.max(worst, compare(p, prompt.logits, logits));
      cache.truncate(prompt.ids.length - 1);
      int[] last = {prompt.ids[prompt.ids.length - 1]};
      int[] greedy = decoder.greedy(cache, prompt.ids.length - 1, last, prompt.greedy.length);
      if (!Arrays.equals(greedy, prompt.greedy)) {
        throw new ReferenceMismatchException(
            "prompt %d: greedy tokens are %s, reference has %s"
                .formatted(p, Arrays.toString(greedy), Arrays.toString(prompt.greedy)));
      }
    }
    return new Report(prompts.size(), worst);
  }

  private static double compare(int prompt, float[] expected, float[] actual) {
    if (expected.length != actual.length) {
      throw new ReferenceMismatchException(
          "prompt %d: %d logits, reference has %d"
              .formatted(prompt, actual.length, expected.length));
    }
    double worst = 0;
    for (int i = 0; i < expected.length; i++) {
      double difference = Math.abs((double) expected[i] - actual[i]);
      // Written so that a logit that is not a number fails too.
      if (!(difference <= TOLERANCE)) {
        throw new ReferenceMismatchException(
            "prompt %d: logit %d is %s, reference has %s, tolerance %s"
                .formatted(prompt, i, actual[i], expected[i], TOLERANCE));
      }
      worst = Math.max(worst, difference);
    }
    return worst;
  }
}
