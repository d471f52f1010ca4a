package io.kvtier.deploy.bench.decode;

import io.kvtier.deploy.cases.CaseGenerator;
import io.kvtier.deploy.cases.Task;
import io.kvtier.deploy.engine.Tokenizer;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * Text whose end is decoded token by token.
 *
 * @param ids of all tokens; not copied
 * @param scoreFrom the first token that is decoded and not prefilled, 1..ids.length - 1
 */
@SuppressWarnings("ArrayRecordComponent") // Windows are long, and read only.
record TextWindow(int[] ids, int scoreFrom) {
  private static final int IDS_MAX = 1 << 20;

  TextWindow {
    if (scoreFrom < 1 || scoreFrom >= ids.length) {
      throw new IllegalArgumentException(
          "score_from is %d, must be within 1 to %d".formatted(scoreFrom, ids.length - 1));
    }
  }

  /** The same with at most so many tokens to decode. */
  TextWindow scoring(int tokens) {
    int end = Math.min(ids.length, scoreFrom + tokens);
    return new TextWindow(Arrays.copyOf(ids, end), scoreFrom);
  }

  /** Windows of the case generator's prose. */
  static List<TextWindow> generated(
      Tokenizer tokenizer, int count, int context, int scored, long seed) {
    CaseGenerator generator = new CaseGenerator(tokenizer);
    List<TextWindow> windows = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      int[] ids =
          generator.generate(Task.NEEDLE, context + 2 * scored, seed * 1009 + i).contextIds();
      windows.add(new TextWindow(Arrays.copyOf(ids, context + scored), context));
    }
    return windows;
  }

  /**
   * Windows of a file of plain text, one behind the other; what is not ASCII is left out, since the
   * shipped model has seen none.
   */
  static List<TextWindow> ofText(Path file, Tokenizer tokenizer, int count, int context, int scored)
      throws IOException {
    String text = Files.readString(file).replaceAll("[^\\x20-\\x7E\\n]", "");
    int[] ids = tokenizer.encode(text);
    List<TextWindow> windows = new ArrayList<>();
    for (int at = 0; windows.size() < count; at += context + scored) {
      if (at + context + scored > ids.length) {
        throw new IOException(
            "%s has %d tokens; %d windows of %d + %d need more"
                .formatted(file, ids.length, count, context, scored));
      }
      windows.add(new TextWindow(Arrays.copyOfRange(ids, at, at + context + scored), context));
    }
    return windows;
  }

  /** Windows of JSON lines {@code {ids, score_from}}, the first {@code count} of them. */
  static List<TextWindow> read(Path file, int count, int vocabSize) throws IOException {
    List<TextWindow> windows = new ArrayList<>();
    for (String line : Files.readAllLines(file)) {
      if (windows.size() == count || line.isBlank()) {
        continue;
      }
      JsonNode root = JsonMapper.shared().readTree(line);
      JsonNode list = root.path("ids");
      if (!list.isArray() || list.size() < 2 || list.size() > IDS_MAX) {
        throw new IOException(
            "%s: ids must be an array of 2 to %d token ids".formatted(file, IDS_MAX));
      }
      int[] ids = new int[list.size()];
      for (int i = 0; i < ids.length; i++) {
        ids[i] = list.path(i).asInt(-1);
        if (ids[i] < 0 || ids[i] >= vocabSize) {
          throw new IOException(
              "%s: ids has %s at %d, must be within 0 to %d"
                  .formatted(file, list.path(i), i, vocabSize - 1));
        }
      }
      windows.add(new TextWindow(ids, root.path("score_from").asInt(0)));
    }
    if (windows.isEmpty()) {
      throw new IOException(file + " holds no windows");
    }
    return windows;
  }
}
