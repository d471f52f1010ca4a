package io.kvtier.deploy.command;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** Plans without services: on the shipped model's text, and from a geometry alone. */
final class PlanCommandTest {
  private static final Path MODEL = Path.of("model");

  @TempDir private Path directory;

  private JsonNode rows(String... options) throws IOException {
    Path json = directory.resolve("rows.json");
    CommandLine command = new CommandLine(new PlanCommand());
    String[] args = java.util.Arrays.copyOf(options, options.length + 2);
    args[options.length] = "--json";
    args[options.length + 1] = json.toString();
    assertThat(command.execute(args)).isZero();
    return JsonMapper.shared().readTree(Files.readString(json));
  }

  @Test
  void fewerBytesKeepLessAndFetchMore() throws IOException {
    String model = MODEL.toString();
    JsonNode ample = rows("--model", model, "--context", "2k", "--gpu-bytes", "2m");
    JsonNode scarce = rows("--model", model, "--context", "2k", "--gpu-bytes", "256k");

    assertThat(ample.size()).isEqualTo(8);
    assertThat(sum(ample, "deviceBytes")).isGreaterThan(sum(scarce, "deviceBytes"));
    assertThat(sum(scarce, "fetchBytes")).isGreaterThan(sum(ample, "fetchBytes"));
    assertThat(sum(scarce, "deviceBytes")).isLessThan(256 << 10);
    assertThat(ample.path(0).path("why").stringValue()).contains("tokens leave 1 %");
  }

  @Test
  void aGeometryAloneHasAPlanWithoutAProfile() throws IOException {
    Files.copy(MODEL.resolve("config.json"), directory.resolve("config.json"));
    JsonNode rows = rows("--model", directory.toString(), "--context", "128k");

    assertThat(rows.size()).isEqualTo(8);
    assertThat(rows.path(0).path("why").stringValue()).startsWith("no profile");
  }

  @Test
  void eightBitsFetchMoreOfStreamedHeads() throws IOException {
    String[] options = {"--model", MODEL.toString(), "--context", "2k", "--gpu-bytes", "320k"};
    JsonNode four = rows(options);
    String[] finer = java.util.Arrays.copyOf(options, options.length + 2);
    finer[options.length] = "--code-bits";
    finer[options.length + 1] = "8";
    JsonNode eight = rows(finer);
    assertThat(four.path(0).path("bits").asInt()).isEqualTo(4);
    assertThat(eight.path(0).path("bits").asInt()).isEqualTo(8);
    assertThat(sum(eight, "fetchBytes")).isGreaterThan(3 * sum(four, "fetchBytes") / 2);
    finer[options.length + 1] = "5";
    assertThat(new CommandLine(new PlanCommand()).execute(finer)).isNotZero();
  }

  /** As sessions are planned: the first head's scores by one plane err by 13, the second's by 2. */
  @Test
  void aHeadWhoseScoresErrHasNoSketchOfOnePlane() throws IOException {
    JsonNode rows = rows("--model", MODEL.toString(), "--context", "4k", "--gpu-bytes", "512k");
    assertThat(rows.path(0).path("sketchPlanes").asInt()).isNotEqualTo(1);
    assertThat(rows.values().stream().anyMatch(row -> row.path("sketchPlanes").asInt() == 1))
        .isTrue();
    assertThat(rows.toString()).contains("by one its scores err too far");
  }

  /** What the tier gives decides what is kept, and not only what is printed of it. */
  @Test
  void aSlowTierHasMoreHeadsDense() throws IOException {
    String[] options = {"--model", MODEL.toString(), "--context", "2k", "--gpu-bytes", "2m"};
    JsonNode usual = rows(options);
    String[] slow = java.util.Arrays.copyOf(options, options.length + 2);
    slow[options.length] = "--bandwidth";
    slow[options.length + 1] = "0.01";
    assertThat(sum(rows(slow), "deviceBytes")).isGreaterThan(sum(usual, "deviceBytes"));
    slow[options.length + 1] = "NaN";
    assertThat(new CommandLine(new PlanCommand()).execute(slow)).isNotZero();
  }

  private static long sum(JsonNode rows, String field) {
    long sum = 0;
    for (JsonNode row : rows.values()) {
      sum += row.path(field).asLong();
    }
    return sum;
  }
}
