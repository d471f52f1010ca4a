package io.kvtier.cachetier.chronicle;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/**
 * On a disk of 96 MiB that others fill. The disk is a mount that only a process of its own
 * namespaces sees; skipped where the system gives none.
 */
@EnabledOnOs(OS.LINUX)
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class ChroniclePageStoreFullDiskTest {
  private static final String MOUNT = "mount -t tmpfs -o size=96m tmpfs \"$0\" && exec \"$@\"";

  @TempDir Path disk;

  private Process start(List<String> command) throws IOException {
    List<String> whole =
        new ArrayList<>(
            List.of("unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, disk.toString()));
    whole.addAll(command);
    return new ProcessBuilder(whole).redirectErrorStream(true).start();
  }

  private boolean canMount() throws InterruptedException {
    try {
      return start(List.of("true")).waitFor() == 0;
    } catch (IOException e) {
      return false;
    }
  }

  @Test
  void aFullDiskRefusesPutsKeepsWhatIsStoredAndRecovers() throws Exception {
    assumeTrue(canMount(), "no mount in a namespace of its own");
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
    command.addAll(List.of("-cp", System.getProperty("java.class.path")));
    command.addAll(List.of(CrampedWriter.class.getName(), disk.toString()));
    Process writer = start(command);
    String told = new String(writer.getInputStream().readAllBytes(), UTF_8);
    System.out.println(told);
    assertThat(writer.waitFor()).isZero();
    assertThat(told)
        .containsSubsequence(
            "EXHAUSTED disk of data directory",
            "is full or failing",
            "full: true",
            "EXHAUSTED disk of data directory",
            "still full: true",
            "EXHAUSTED tier is full",
            "room again: true",
            "recovered",
            ": true");
  }
}
