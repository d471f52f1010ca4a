package io.kvtier.deploy.command;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

class SimulateCommandTest {
  private static String output(String... more) {
    String[] arguments = new String[10 + more.length];
    String[] small = {
      "--workers", "8", "--tiers", "3", "--sessions", "30", "--arrivals", "2m", "--seed", "9"
    };
    System.arraycopy(small, 0, arguments, 0, small.length);
    System.arraycopy(more, 0, arguments, small.length, more.length);
    PrintStream before = System.out;
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    System.setOut(new PrintStream(bytes, true, StandardCharsets.UTF_8));
    try {
      assertThat(new CommandLine(new SimulateCommand()).execute(arguments)).isZero();
    } finally {
      System.setOut(before);
    }
    return bytes.toString(StandardCharsets.UTF_8);
  }

  @Test
  void theSameOptionsPrintTheSameBytes(@TempDir Path directory) throws Exception {
    Path svg = directory.resolve("balance.svg");
    Path json = directory.resolve("figures.json");
    String once = output();
    assertThat(once).contains("sessions opened").contains("a stale epoch changes nothing");
    assertThat(output("--svg", svg.toString(), "--json", json.toString())).isEqualTo(once);
    assertThat(Files.readString(svg)).startsWith("<svg").contains("Sessions of each worker");
    assertThat(Files.readString(json)).contains("\"figures\"").contains("\"rules\"");
  }

  @Test
  void moreNodesThanACoordinatorHoldsAreRefused() {
    CommandLine command = new CommandLine(new SimulateCommand());
    command.setErr(new java.io.PrintWriter(new java.io.StringWriter()));
    assertThat(command.execute("--workers", "1020", "--tiers", "4")).isEqualTo(1);
  }
}
