package io.kvtier.deploy.bench.peer;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/**
 * One exact version of an npm package, for the files in it; none of its code is run. It is
 * installed beside its final directory and then moved there, so that a directory that exists is
 * complete, and two processes may install at once.
 *
 * @param name as in the registry
 * @param version exact
 * @param directoryName of the installed package, under the install directory
 */
record NpmPackage(String name, String version, String directoryName) {
  private static final int OUTPUT_CHARS_MAX = 2_000;

  /**
   * The package's own directory; installs it first if it is not there. Takes at most {@code
   * timeout}.
   *
   * @param npm the program, a name on the path or a file
   * @param installDirectory absolute; made if need be
   */
  Path install(String npm, Path installDirectory, Duration timeout) {
    Path installed = installDirectory.resolve(directoryName + "-" + version);
    Path inPackage = Path.of("node_modules").resolve(name);
    if (!Files.isDirectory(installed.resolve(inPackage))) {
      try {
        Files.createDirectories(installDirectory);
        Path staging = Files.createTempDirectory(installDirectory, directoryName + "-staging");
        try {
          runNpm(npm, staging, timeout);
          if (!Files.isDirectory(staging.resolve(inPackage))) {
            throw unavailable("npm installed " + spec() + ", but there is no " + inPackage, "");
          }
          move(staging, installed);
        } finally {
          deleteTree(staging);
        }
      } catch (IOException e) {
        throw new KvtierException(
            Code.UNAVAILABLE, "cannot install " + spec() + " in " + installDirectory + ": " + e, e);
      }
    }
    return installed.resolve(inPackage);
  }

  private String spec() {
    return name + "@" + version;
  }

  private void runNpm(String npm, Path prefix, Duration timeout) throws IOException {
    Path output = prefix.resolve("npm-output");
    Process process;
    try {
      process =
          new ProcessBuilder(
                  List.of(
                      npm,
                      "install",
                      "--prefix",
                      prefix.toString(),
                      "--no-save",
                      "--ignore-scripts",
                      "--no-audit",
                      "--no-fund",
                      spec()))
              .directory(prefix.toFile())
              .redirectErrorStream(true)
              .redirectOutput(output.toFile())
              .start();
    } catch (IOException e) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "cannot run "
              + npm
              + ", which installs "
              + spec()
              + "; install Node.js with npm ("
              + e
              + ")",
          e);
    }
    try {
      process.getOutputStream().close();
      if (!process.waitFor(timeout.toNanos(), TimeUnit.NANOSECONDS)) {
        throw unavailable(
            "npm did not install " + spec() + " within " + timeout.toSeconds() + " s",
            lastChars(output));
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while npm installed " + spec(), e);
    } finally {
      endTree(process);
    }
    if (process.exitValue() != 0) {
      throw unavailable(
          "npm did not install " + spec() + ", it ended with " + process.exitValue(),
          lastChars(output));
    }
    Files.delete(output);
  }

  /** npm may run as a child of a shell script; both end. */
  private static void endTree(Process process) {
    process.descendants().forEach(ProcessHandle::destroyForcibly);
    process.destroyForcibly();
  }

  private static KvtierException unavailable(String message, String output) {
    return new KvtierException(
        Code.UNAVAILABLE, output.isEmpty() ? message : message + ": " + output);
  }

  private static String lastChars(Path output) throws IOException {
    String text = new String(Files.readAllBytes(output), StandardCharsets.UTF_8).strip();
    return text.substring(Math.max(0, text.length() - OUTPUT_CHARS_MAX));
  }

  /** Another process may have been faster; then its copy stays. */
  private static void move(Path staging, Path installed) throws IOException {
    try {
      Files.move(staging, installed, StandardCopyOption.ATOMIC_MOVE);
    } catch (FileAlreadyExistsException | DirectoryNotEmptyException e) {
      if (!Files.isDirectory(installed)) {
        throw e;
      }
    }
  }

  /** What cannot be deleted stays: it harms nothing, and must not hide why npm failed. */
  private static void deleteTree(Path directory) {
    if (!Files.exists(directory)) {
      return;
    }
    try (Stream<Path> walk = Files.walk(directory)) {
      for (Path path : walk.sorted(Comparator.reverseOrder()).toList()) {
        Files.delete(path);
      }
    } catch (IOException | UncheckedIOException e) {
      // See above.
    }
  }
}
