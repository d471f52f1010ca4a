package io.kvtier.deploy.bench.peer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.stream.Stream;
import org.assertj.core.api.AbstractThrowableAssert;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Installing, with a planted npm. */
class NpmPackageTest {
  private static final NpmPackage PACKAGE = new NpmPackage("@scope/name", "1.2.3", "planted");
  private static final Duration LONG = Duration.ofSeconds(60);

  @TempDir Path directory;
  private Path target;

  @BeforeEach
  void target() {
    target = directory.resolve("cache").resolve("kvtier");
  }

  private String npm(String script) throws IOException {
    Path npm = Files.writeString(directory.resolve("npm"), "#!/bin/sh\n" + script);
    return Files.setPosixFilePermissions(npm, PosixFilePermissions.fromString("rwx------"))
        .toString();
  }

  @Test
  void aPackageIsInstalledOnce() throws IOException {
    // $3 is the value of --prefix.
    String npm = npm("mkdir -p $3/node_modules/@scope/name && echo $@ > $3/node_modules/called\n");
    Path installed = PACKAGE.install(npm, target, LONG);
    assertThat(installed).isDirectory().endsWithRaw(Path.of("node_modules/@scope/name"));
    assertThat(installed.resolve("../../called"))
        .content()
        .contains("--no-save --ignore-scripts", "@scope/name@1.2.3");
    assertThat(PACKAGE.install("no-such-npm", target, LONG)).isEqualTo(installed);
    assertThat(names(target)).containsExactly("planted-1.2.3");
  }

  @Test
  void aFailureLeavesNothingAndIsTold() throws IOException {
    String npm = npm("mkdir -p $3/node_modules/@scope/name; echo cannot reach it >&2; exit 7\n");
    assertFails(npm, LONG).hasMessageContaining("ended with 7: cannot reach it");
    assertFails(npm("exit 0\n"), LONG).hasMessageContaining("there is no node_modules");
    assertFails(npm("sleep 600\n"), Duration.ofMillis(200)).hasMessageContaining("within");
    assertFails("no-such-npm", LONG).hasMessageContaining("install Node.js with npm");
    assertThat(names(target)).isEmpty();
  }

  private AbstractThrowableAssert<?, ? extends Throwable> assertFails(
      String npm, Duration timeout) {
    return assertThatThrownBy(() -> PACKAGE.install(npm, target, timeout))
        .isInstanceOfSatisfying(
            KvtierException.class,
            e -> assertThat(e.code()).isEqualTo(KvtierException.Code.UNAVAILABLE));
  }

  private static Stream<String> names(Path directory) throws IOException {
    try (Stream<Path> list = Files.list(directory)) {
      return list.map(path -> path.getFileName().toString()).toList().stream();
    }
  }
}
