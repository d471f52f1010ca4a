package io.kvtier.deploy.cases;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * Reads cases from JSON lines: {@code {id, task, length, n_keys, context_ids, queries: [{key,
 * depth, query_ids, query_text, answer_ids, answer_text}]}}.
 */
public final class EvalCases {
  private static final int CASES_MAX = 10_000;
  private static final int LINE_CHARS_MAX = 64 << 20;
  private static final int CONTEXT_IDS_MAX = 1 << 21;
  private static final int QUERY_IDS_MAX = 4096;
  private static final int QUERIES_MAX = 1024;

  private EvalCases() {}

  /**
   * Reads all cases of a file.
   *
   * @param vocabSize every id must be below it
   * @throws CaseFormatException naming file, line and field of what is wrong
   */
  public static List<EvalCase> read(Path file, int vocabSize) throws IOException {
    List<EvalCase> cases = new ArrayList<>();
    try (BufferedReader reader = Files.newBufferedReader(file)) {
      int number = 1;
      for (String line = reader.readLine(); line != null; line = reader.readLine(), number++) {
        if (line.isBlank()) {
          continue;
        }
        Line at = new Line(file.getFileName() + " line " + number, vocabSize);
        if (line.length() > LINE_CHARS_MAX || cases.size() == CASES_MAX) {
          throw at.wrong(
              "file",
              "has a line above %d characters or more than %d cases"
                  .formatted(LINE_CHARS_MAX, CASES_MAX));
        }
        cases.add(at.parse(line));
      }
    }
    if (cases.isEmpty()) {
      throw new CaseFormatException(file.getFileName() + ": holds no cases", null);
    }
    return List.copyOf(cases);
  }

  private record Line(String where, int vocabSize) {

    EvalCase parse(String line) {
      JsonNode root;
      try {
        root = JsonMapper.shared().readTree(line);
      } catch (JacksonException e) {
        throw new CaseFormatException(where + ": not JSON: " + e.getOriginalMessage(), e);
      }
      JsonNode list = root.path("queries");
      if (!list.isArray() || list.isEmpty() || list.size() > QUERIES_MAX) {
        throw wrong("queries", "must be an array of 1 to %d".formatted(QUERIES_MAX));
      }
      List<EvalCase.Query> queries = new ArrayList<>();
      for (JsonNode node : list.values()) {
        queries.add(
            new EvalCase.Query(
                text(node, "key"),
                depth(node),
                ids(node, "query_ids", QUERY_IDS_MAX),
                ids(node, "answer_ids", QUERY_IDS_MAX),
                text(node, "query_text"),
                text(node, "answer_text")));
      }
      return new EvalCase(
          text(root, "id"),
          text(root, "task"),
          integer(root, "length", CONTEXT_IDS_MAX),
          integer(root, "n_keys", CONTEXT_IDS_MAX),
          ids(root, "context_ids", CONTEXT_IDS_MAX),
          queries);
    }

    private String text(JsonNode node, String field) {
      JsonNode value = node.path(field);
      if (!value.isString()) {
        throw wrong(field, "must be a string");
      }
      return value.stringValue();
    }

    private double depth(JsonNode node) {
      JsonNode value = node.path("depth");
      if (!value.isNumber() || !(value.doubleValue() >= 0 && value.doubleValue() <= 1)) {
        throw wrong("depth", "is %s, must be a number within 0 to 1".formatted(value));
      }
      return value.doubleValue();
    }

    private int integer(JsonNode node, String field, int most) {
      JsonNode value = node.path(field);
      if (!value.isIntegralNumber()
          || !value.canConvertToInt()
          || value.intValue() < 1
          || value.intValue() > most) {
        throw wrong(field, "is %s, must be an integer within 1 to %d".formatted(value, most));
      }
      return value.intValue();
    }

    private int[] ids(JsonNode node, String field, int most) {
      JsonNode array = node.path(field);
      if (!array.isArray() || array.isEmpty() || array.size() > most) {
        throw wrong(field, "must be an array of 1 to %d token ids".formatted(most));
      }
      int[] ids = new int[array.size()];
      for (int i = 0; i < ids.length; i++) {
        JsonNode id = array.path(i);
        if (!id.isIntegralNumber()
            || !id.canConvertToInt()
            || id.intValue() < 0
            || id.intValue() >= vocabSize) {
          throw wrong(
              field, "has %s at %d, must be within 0 to %d".formatted(id, i, vocabSize - 1));
        }
        ids[i] = id.intValue();
      }
      return ids;
    }

    CaseFormatException wrong(String field, String what) {
      return new CaseFormatException(where + ": " + field + " " + what, null);
    }
  }
}
