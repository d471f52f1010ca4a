package io.kvtier.deploy.command;

import io.kvtier.deploy.bench.QualitySettings;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** What the decode benchmark's quality part is to do. */
final class QualityOptions {
  @Option(
      names = "--model",
      description = "decode: directory of the model (default: the shipped one)")
  private @Nullable Path model;

  @Option(
      names = "--budget",
      split = ",",
      defaultValue = "1/8,1/16",
      converter = Share.class,
      description =
          "decode: device bytes as shares of the full KV cache (default: ${DEFAULT-VALUE})")
  private List<Double> budgets = List.of();

  @Option(
      names = "--length",
      split = ",",
      defaultValue = "2k,4k",
      converter = TokenCount.class,
      description = "decode: context lengths of the questions (default: ${DEFAULT-VALUE})")
  private List<Integer> lengths = List.of();

  @Option(
      names = "--cases",
      defaultValue = "5",
      description = "decode: questions a task and length, 0: none (default: ${DEFAULT-VALUE})")
  private int cases;

  @Option(
      names = "--context",
      defaultValue = "4k",
      converter = TokenCount.class,
      description =
          "decode, prefix: tokens of a text window that are prefilled (default: ${DEFAULT-VALUE})")
  private int context;

  @Option(
      names = "--windows",
      defaultValue = "2",
      description = "decode: text windows, 0: none (default: ${DEFAULT-VALUE})")
  private int windows;

  @Option(
      names = "--scored",
      defaultValue = "96",
      description = "decode: tokens decoded of a text window (default: ${DEFAULT-VALUE})")
  private int scored;

  @Option(
      names = "--text",
      description =
          "decode: file of text to decode the end of, in windows; or .jsonl: lines of ids and"
              + " score_from")
  private @Nullable Path text;

  @Option(names = "--eval", description = "decode: file of questions as the demo takes it")
  private List<Path> eval = List.of();

  @Option(
      names = "--seed",
      defaultValue = "1",
      description = "decode: seed of generated text and questions (default: ${DEFAULT-VALUE})")
  private long seed;

  QualitySettings settings() {
    return new QualitySettings(
        Optional.ofNullable(model),
        budgets,
        lengths,
        cases,
        context,
        windows,
        scored,
        Optional.ofNullable(text),
        eval,
        seed);
  }
}
