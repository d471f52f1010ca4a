package io.kvtier.integration;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.deploy.Kvtier;
import java.io.IOException;
import java.io.StringWriter;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import javax.tools.Diagnostic;
import javax.tools.DiagnosticCollector;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;
import picocli.CommandLine.ParameterException;

/**
 * The README tells the truth: its commands are understood, its block of services runs, its Java
 * compiles. Its test command and its first demo are what {@code .ci/run} runs.
 */
class ReadmeIT {
  private static final Path README = Path.of(System.getProperty("kvtier.home"), "README.md");
  private static final Pattern BLOCK = Pattern.compile("(?ms)^```(\\w*)\\n(.*?)^```$");
  private static final Pattern INLINE = Pattern.compile("`(\\./kvtier [^`]+)`");
  private static final Pattern CODE = Pattern.compile("`([^`]+)`");
  private static final String PORT = "7400";

  private static String readme() throws IOException {
    return Files.readString(README);
  }

  /** The fenced blocks of one language; commands have none. */
  private static List<String> blocks(String language) throws IOException {
    return BLOCK
        .matcher(readme())
        .results()
        .filter(block -> block.group(1).equals(language))
        .map(block -> block.group(2))
        .toList();
  }

  private static Stream<String> linesOfKvtier(String block) {
    return block.lines().map(String::strip).filter(line -> line.startsWith("./kvtier"));
  }

  private static String[] arguments(String command) {
    String[] words = command.split("\\s+");
    return Stream.of(words).skip(1).toArray(String[]::new);
  }

  private static CommandLine program() {
    return new CommandLine(new Kvtier()).setCaseInsensitiveEnumValuesAllowed(true);
  }

  @Test
  void everyCommandIsUnderstood() throws IOException {
    List<String> commands = new ArrayList<>();
    for (String block : blocks("")) {
      linesOfKvtier(block).forEach(commands::add);
    }
    INLINE.matcher(readme()).results().map(found -> found.group(1)).forEach(commands::add);
    assertThat(commands).hasSizeGreaterThan(8);
    for (String command : commands) {
      assertThat(faultOf(arguments(command))).as(command).isEmpty();
    }
  }

  private static String faultOf(String... arguments) {
    try {
      program().parseArgs(arguments);
      return "";
    } catch (ParameterException e) {
      return String.valueOf(e.getMessage());
    }
  }

  @Test
  void aCommandThatIsNotThereIsSeen() {
    assertThat(faultOf("demo", "--lenght", "2k")).contains("--lenght");
    assertThat(faultOf("dmeo")).contains("dmeo");
  }

  /**
   * A table of options names its commands in its head; one that does not belongs to the last
   * command of a block before it.
   */
  @Test
  void everyOptionInATableExists() throws IOException {
    List<String> commands = List.of();
    String lastCommand = "";
    int options = 0;
    for (String line : readme().lines().toList()) {
      if (line.startsWith("./kvtier ")) {
        lastCommand = arguments(line)[0];
      }
      if (line.startsWith("| option")) {
        List<String> named = codeIn(firstCell(line));
        commands = named.isEmpty() ? List.of(lastCommand) : named;
      } else if (line.startsWith("| `--")) {
        for (String option : codeIn(firstCell(line))) {
          for (String command : commands) {
            assertThat(hasOption(command, option)).as("kvtier %s %s", command, option).isTrue();
            options++;
          }
        }
      }
    }
    assertThat(options).isGreaterThan(12);
    assertThat(hasOption("demo", "--tier-bytes 4g")).isFalse();
  }

  private static String firstCell(String row) {
    return row.substring(1, row.indexOf('|', 1));
  }

  private static List<String> codeIn(String cell) {
    return CODE.matcher(cell).results().map(found -> found.group(1)).toList();
  }

  private static boolean hasOption(String command, String option) {
    CommandLine subcommand = program().getSubcommands().get(command);
    return subcommand != null
        && subcommand.getCommandSpec().findOption(option.split("[ =]", 2)[0]) != null;
  }

  /** The services of the block, each in its own process, then the client command of its end. */
  @Test
  @Timeout(value = 180, unit = TimeUnit.SECONDS)
  void theBlockOfServicesRuns(@TempDir Path directory) throws Exception {
    List<String> commands =
        blocks("").stream()
            .map(block -> linesOfKvtier(block).toList())
            .filter(lines -> !lines.isEmpty() && lines.getFirst().contains("coordinator"))
            .findFirst()
            .orElseThrow();
    List<ServiceProcess> services = new ArrayList<>();
    try {
      String coordinator = "127.0.0.1:" + PORT;
      for (String command : commands.subList(0, commands.size() - 1)) {
        String ours = command.replace("--port " + PORT, "--port 0");
        services.add(new ServiceProcess(arguments(ours.replace("127.0.0.1:" + PORT, coordinator))));
        coordinator = services.getFirst().target;
      }
      String client = commands.getLast().replace("127.0.0.1:" + PORT, coordinator);
      Path rows = directory.resolve("rows.json");
      String smallest = client + " --length 2k --cases 1 --json " + rows;
      assertThat(Kvtier.run(arguments(smallest))).as(smallest).isZero();
      assertThat(rows).isNotEmptyFile();
    } finally {
      services.reversed().forEach(ServiceProcess::close);
    }
  }

  /** The client's example, inside a method that has what it takes for granted. */
  @Test
  void theJavaExampleCompiles() throws IOException {
    List<String> examples = blocks("java");
    assertThat(examples).isNotEmpty();
    for (String example : examples) {
      assertThat(errorsOf(example)).isEmpty();
      assertThat(errorsOf(example.replace("client.open(", "client.opens("))).isNotEmpty();
    }
  }

  private static List<String> errorsOf(String example) throws IOException {
    String source =
        """
        import com.google.protobuf.ByteString;
        import io.kvtier.client.*;
        import io.kvtier.v1.*;
        import java.util.List;

        final class Example {
          static void run(
              byte[] sixteenBytesThatNameTheWeights, int tokens, float[][] keys, float[][] values,
              float[][] lastQueries, int position, float[] q, float[] k, float[] v,
              float[] nextLayersPredictedQ, float[] output, int layer0, List<Integer> promptIds,
              float[] keysFromThere, float[] valuesFromThere%s) throws Exception {
            %s
          }
        }
        """
            .formatted(
                example.contains("geometry =") ? "" : ", Geometry geometry, int layer",
                example.replace("decode.step(layer,", "decode.step(layer0,"));
    JavaFileObject file =
        new SimpleJavaFileObject(URI.create("string:///Example.java"), JavaFileObject.Kind.SOURCE) {
          @Override
          public CharSequence getCharContent(boolean ignoreEncodingErrors) {
            return source;
          }
        };
    JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
    DiagnosticCollector<JavaFileObject> found = new DiagnosticCollector<>();
    List<String> options =
        List.of("-proc:none", "-implicit:none", "-d", System.getProperty("java.io.tmpdir"));
    boolean compiled =
        compiler
            .getTask(new StringWriter(), null, found, withClassPath(options), null, List.of(file))
            .call();
    Files.deleteIfExists(Path.of(System.getProperty("java.io.tmpdir"), "Example.class"));
    List<String> errors =
        found.getDiagnostics().stream()
            .filter(each -> each.getKind() == Diagnostic.Kind.ERROR)
            .map(Object::toString)
            .toList();
    assertThat(compiled).isEqualTo(errors.isEmpty());
    return errors;
  }

  private static List<String> withClassPath(List<String> options) {
    List<String> all = new ArrayList<>(options);
    all.addAll(List.of("-classpath", System.getProperty("java.class.path")));
    return all;
  }
}
