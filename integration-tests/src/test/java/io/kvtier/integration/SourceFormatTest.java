package io.kvtier.integration;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.googlejavaformat.java.Formatter;
import com.google.googlejavaformat.java.FormatterException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/**
 * Every Java file is as google-java-format writes it. It runs as a test because the formatter needs
 * the JDK that the project is built for, not the one that runs Maven. To mend: {@code mvn verify
 * -Dkvtier.format=write}.
 */
class SourceFormatTest {
  private static final Path HOME = Path.of(System.getProperty("kvtier.home"));

  @Test
  void sourcesAreFormatted() throws IOException, FormatterException {
    boolean write = "write".equals(System.getProperty("kvtier.format"));
    List<String> unformatted = new ArrayList<>();
    Formatter formatter = new Formatter();
    for (Path file : javaFiles()) {
      String source = Files.readString(file);
      String formatted = formatter.formatSourceAndFixImports(source);
      if (!formatted.equals(source)) {
        if (write) {
          Files.writeString(file, formatted);
        } else {
          unformatted.add(HOME.relativize(file).toString());
        }
      }
    }
    assertThat(unformatted)
        .as("not formatted; run: mvn verify -Dkvtier.format=write, and look at the diff")
        .isEmpty();
  }

  @Test
  void theFormatterSeesAPlantedFault() throws FormatterException {
    assertThat(new Formatter().formatSource("class  A{int  b;}\n"))
        .isEqualTo("class A {\n  int b;\n}\n");
  }

  private static List<Path> javaFiles() throws IOException {
    List<Path> files = new ArrayList<>();
    for (String directory :
        List.of(
            "proto/src",
            "cache-tier/src",
            "gpu-worker/src",
            "gpu-worker-tornado/src",
            "coordinator/src",
            "deploy/src",
            "integration-tests/src",
            "integration-tests/peers")) {
      try (Stream<Path> walk = Files.walk(HOME.resolve(directory))) {
        walk.filter(path -> path.toString().endsWith(".java")).forEach(files::add);
      }
    }
    assertThat(files).hasSizeGreaterThan(100);
    return files;
  }
}
