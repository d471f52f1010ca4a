package io.kvtier.deploy.bench;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/**
 * What a user may ask of the measuring of quality.
 *
 * @param model directory of the model; empty: the shipped one
 * @param budgets device bytes as shares of the full KV cache at 16 bits, above 0, at most 1
 * @param lengths nominal context lengths of the questions, 256..1048576; empty: no questions
 * @param cases questions a task and length, 0..1000
 * @param context tokens of a text window before those that are scored, 256..1048576
 * @param windows text windows, 0..1000
 * @param scored tokens scored a window, 1..65536
 * @param text windows from a file of plain text, or of JSON lines, instead of generated ones
 * @param eval questions from files of JSON lines instead of generated ones
 * @param seed of what is generated
 */
public record QualitySettings(
    Optional<Path> model,
    List<Double> budgets,
    List<Integer> lengths,
    int cases,
    int context,
    int windows,
    int scored,
    Optional<Path> text,
    List<Path> eval,
    long seed) {
  public QualitySettings {
    budgets = List.copyOf(budgets);
    lengths = List.copyOf(lengths);
    eval = List.copyOf(eval);
    for (double budget : budgets) {
      if (!(budget > 0 && budget <= 1)) {
        throw KvtierException.invalid(
            "budget is %s; it must be above 0 and at most 1, for example 1/16", budget);
      }
    }
    for (int length : lengths) {
      requireInRange("length", length, 256, 1 << 20);
    }
    requireInRange("cases", cases, 0, 1000);
    requireInRange("context", context, 256, 1 << 20);
    requireInRange("windows", windows, 0, 1000);
    requireInRange("scored", scored, 1, 1 << 16);
  }
}
