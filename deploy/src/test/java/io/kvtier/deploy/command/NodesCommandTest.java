package io.kvtier.deploy.command;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.Kvtier;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.EndpointConfig;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

class NodesCommandTest {
  private record Ended(int code, String output) {}

  private static Ended run(String... arguments) {
    PrintStream out = System.out;
    PrintStream err = System.err;
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    PrintStream both = new PrintStream(bytes, true, StandardCharsets.UTF_8);
    System.setOut(both);
    System.setErr(both);
    try {
      return new Ended(Kvtier.run(arguments), bytes.toString(StandardCharsets.UTF_8));
    } finally {
      System.setOut(out);
      System.setErr(err);
    }
  }

  private static String idOf(String role, String output) {
    Matcher line = Pattern.compile("(?m)^(\\S+) +" + role + " ").matcher(output);
    assertThat(line.find()).as(output).isTrue();
    return line.group(1);
  }

  @Test
  void nodesAreListedDrainedAndTakenBack() {
    try (AllInOne service =
        AllInOne.start(
            CoordinatorConfig.defaults(),
            new CacheTierConfig(EndpointConfig.loopback(), 64L << 20, Optional.empty()),
            32L << 20)) {
      String at = service.coordinator().target();
      Ended listed = run("nodes", "--endpoint", at);
      assertThat(listed.code()).as(listed.output()).isZero();
      assertThat(listed.output()).contains("active").doesNotContain("draining");
      for (String role : List.of("worker", "tier")) {
        String id = idOf(role, listed.output());
        Ended drained = run("nodes", "--endpoint", at, "--drain", id);
        assertThat(drained.output())
            .containsPattern(Pattern.quote(id) + " +" + role + " .* draining")
            .contains(id + " gets nothing new; it has no session");
        Ended back = run("nodes", "--endpoint", at, "--undrain", id);
        assertThat(back.output()).contains(id + " takes work again").doesNotContain("draining");
      }
      Ended unknown = run("nodes", "--endpoint", at, "--drain", "nobody");
      assertThat(unknown.code()).isEqualTo(1);
      assertThat(unknown.output()).contains("nobody");
    }
  }
}
