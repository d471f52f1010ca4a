package io.kvtier.deploy.bench.peer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import org.assertj.core.api.AbstractThrowableAssert;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The protocol against a planted harness; ggml itself is not needed. */
class GgmlPeerTest {
  private static final Path HOME = Path.of(System.getProperty("kvtier.home"));
  private static final Duration LONG = Duration.ofSeconds(60);

  /** Behaves as its argument, which would be the library directory, says. */
  private static final String PLANTED =
      """
      import java.io.*;

      public class Planted {
        public static void main(String[] args) throws Exception {
          BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
          System.out.println("ready planted 1.2");
          for (String line = input.readLine(); line != null; line = input.readLine()) {
            if (args[0].endsWith("dies")) {
              for (int i = 0; i < 30; i++) {
                System.err.println("trace " + i);
              }
              System.exit(3);
            }
            if (args[0].endsWith("hangs")) {
              Thread.sleep(600_000);
            }
            System.out.println(
                switch (line) {
                  case "prepare q8_0 64 4 2 32 1", "release" -> "ok";
                  case "run 4" -> "ns 2000000000";
                  case "check" -> "ok 2.500e-01";
                  case "run 5" -> "ns soon";
                  default -> "error no " + line;
                });
          }
        }
      }
      """;

  @TempDir Path directory;

  private GgmlPeer launch(String behaviour, Duration startTimeout, Duration answerTimeout)
      throws IOException {
    Path harness = Files.writeString(directory.resolve("Planted.java"), PLANTED);
    return GgmlPeer.launch(harness, Path.of(behaviour), startTimeout, answerTimeout);
  }

  @AfterEach
  void noChildIsLeft() {
    assertThat(
            ProcessHandle.current()
                .descendants()
                .filter(
                    child -> child.info().commandLine().orElse("").contains(directory.toString())))
        .isEmpty();
  }

  @Test
  void theProtocolIsSpoken() throws IOException {
    GgmlPeer closed;
    try (GgmlPeer peer = launch("answers", LONG, LONG)) {
      closed = peer;
      assertThat(peer.version()).isEqualTo("planted 1.2");
      peer.prepare(GgmlPeer.Dtype.Q8_0, 64, 4, 2, 32, 1);
      assertThat(peer.secondsPerRun(4)).isEqualTo(0.5);
      assertThat(peer.check()).isEqualTo(0.25);
      peer.release();
      assertFails(Code.UNAVAILABLE, () -> peer.prepare(GgmlPeer.Dtype.F16, 64, 4, 2, 32, 1))
          .hasMessageContaining("no prepare f16 64 4 2 32 1");
      assertFails(Code.INTERNAL, () -> peer.secondsPerRun(5)).hasMessageContaining("soon");
      assertFails(Code.INVALID, () -> peer.secondsPerRun(0)).hasMessageContaining("runs is 0");
    }
    closed.close();
    assertFails(Code.UNAVAILABLE, closed::check).hasMessageContaining("ended with 0");
  }

  @Test
  void aPeerThatDiesIsHeard() throws IOException {
    try (GgmlPeer peer = launch("dies", LONG, LONG)) {
      assertFails(Code.UNAVAILABLE, peer::check)
          .hasMessageContaining("ended with 3 at 'check'")
          .hasMessageContaining("trace 29")
          .hasMessageContaining("trace 10")
          .hasMessageNotContaining("trace 9\n");
      assertFails(Code.UNAVAILABLE, peer::check).hasMessageContaining("ended with 3");
    }
  }

  @Test
  void aPeerThatHangsIsEnded() throws IOException {
    try (GgmlPeer peer = launch("hangs", LONG, Duration.ofMillis(100))) {
      assertFails(Code.DEADLINE, peer::check).hasMessageContaining("did not answer 'check'");
      assertFails(Code.UNAVAILABLE, peer::check).hasMessageContaining("ended");
    }
  }

  @Test
  void aStartThatHangsIsEnded() {
    assertFails(Code.DEADLINE, () -> launch("answers", Duration.ofMillis(1), LONG))
        .hasMessageContaining("did not answer 'start'");
  }

  @Test
  void theHarnessCompilesAndNamesMissingLibraries() {
    Path harness = HOME.resolve("integration-tests/peers/ggml/GgmlFlashAttention.java");
    assertFails(Code.UNAVAILABLE, () -> GgmlPeer.launch(harness, directory, LONG, LONG))
        .hasMessageContaining("one libggml.*so is wanted in " + directory);
  }

  @Test
  void aTreeWithoutTheHarnessIsRefused() {
    assertFails(Code.UNAVAILABLE, () -> GgmlPeer.start(directory, directory))
        .hasMessageContaining("GgmlFlashAttention.java");
  }

  @Test
  void otherPlatformsAreRefused() {
    GgmlPeer.requirePlatform("Linux", "amd64");
    assertFails(Code.UNAVAILABLE, () -> GgmlPeer.requirePlatform("Linux", "aarch64"))
        .hasMessageContaining("this is Linux on aarch64");
    assertFails(Code.UNAVAILABLE, () -> GgmlPeer.requirePlatform("Mac OS X", "amd64"))
        .hasMessageContaining("this is Mac OS X");
  }

  private static AbstractThrowableAssert<?, ? extends Throwable> assertFails(
      Code code, ThrowingCallable call) {
    return assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).as("%s", e).isEqualTo(code));
  }
}
