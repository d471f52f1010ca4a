package io.kvtier.integration;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.gpuworker.Devices;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;

/**
 * What {@code kvtier doctor} says without an SDK, with one and no driver, and with a device: in
 * processes that are started as the launcher starts them.
 */
class DoctorIT {
  private static final String HOME = "TORNADOVM_HOME";
  private static final int SECONDS_MAX = 180;

  /** Where OpenCL's loader looks for drivers. */
  private static final String DRIVERS = "OCL_ICD_VENDORS";

  @TempDir Path empty;

  private record Said(int exitCode, String lines) {}

  private Said doctor(boolean withFlags, Map<String, String> environment, String... arguments)
      throws IOException, InterruptedException {
    Path home = Path.of(System.getProperty("kvtier.home"));
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    if (withFlags) {
      command.add("@" + System.getenv(HOME) + "/tornado-argfile");
      command.add("-Dtornado.recover.bailout=False");
      command.add("-Dtornado.compiler.fullInlining=True");
    }
    command.add("@" + home.resolve("deploy/kvtier.jvmargs"));
    command.addAll(List.of("-cp", System.getProperty("java.class.path")));
    command.addAll(List.of("io.kvtier.deploy.Kvtier", "doctor"));
    command.addAll(List.of(arguments));
    Path lines = Files.createTempFile(empty, "doctor", ".txt");
    ProcessBuilder builder =
        new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(lines.toFile());
    builder.environment().remove(HOME);
    builder.environment().putAll(environment);
    Process process = builder.start();
    try {
      assertThat(process.waitFor(SECONDS_MAX, TimeUnit.SECONDS)).as("it ends").isTrue();
    } finally {
      process.destroyForcibly();
    }
    return new Said(process.exitValue(), Files.readString(lines, UTF_8));
  }

  @Test
  void withoutAnSdkItTellsWhatToInstallAndTakesTheProcessor() throws Exception {
    Said said = doctor(false, Map.of());
    assertThat(said.exitCode()).isZero();
    assertThat(said.lines()).contains("cpu       ").contains("chosen    cpu");
    if (Devices.providers().isEmpty()) {
      assertThat(said.lines())
          .contains("tornado   not in this build: TORNADOVM_HOME is not set. Install a TornadoVM");
      Said elsewhere = doctor(false, Map.of(HOME, empty.toString()));
      assertThat(elsewhere.lines())
          .contains("TORNADOVM_HOME is " + empty + ", where there is no tornado-argfile");
    } else {
      assertThat(said.lines())
          .contains("tornado   cannot be used: this process was started without TornadoVM's flags");
    }
  }

  @Test
  void withoutAnSdkTheDeviceIsNotToBeHad() throws Exception {
    Said said = doctor(false, Map.of(), "--device", "tornado");
    assertThat(said.exitCode()).isEqualTo(1);
    assertThat(said.lines()).contains("chosen    none: ").contains("TORNADOVM_HOME");
  }

  @Test
  @EnabledIfEnvironmentVariable(named = HOME, matches = ".+")
  void withoutADriverItTellsToInstallOne() throws Exception {
    Map<String, String> environment =
        Map.of(HOME, System.getenv(HOME), DRIVERS, empty.toString() + "/");
    Said said = doctor(true, environment, "--device", "tornado");
    assertThat(said.exitCode()).isEqualTo(1);
    assertThat(said.lines())
        .contains("tornado   ")
        .contains("install a driver with OpenCL or CUDA")
        .contains("chosen    none: ");
  }

  @Test
  @EnabledIfEnvironmentVariable(named = HOME, matches = ".+")
  void withADeviceItCompilesAndRunsEveryKernel() throws Exception {
    Said said = doctor(true, Map.of(HOME, System.getenv(HOME)), "--device", "tornado:0:0");
    assertThat(said.lines()).contains("tornado   tornado:0:0  ");
    assertThat(said.exitCode()).as(said.lines()).isZero();
    assertThat(said.lines()).contains("chosen    tornado:0:0, ");
    Said absent = doctor(true, Map.of(HOME, System.getenv(HOME)), "--device", "tornado:0:9");
    assertThat(absent.exitCode()).isEqualTo(1);
    assertThat(absent.lines()).contains("there is no device tornado:0:9; there are: tornado:0:0");
  }
}
