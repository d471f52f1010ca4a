package io.kvtier.deploy.command;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import tools.jackson.databind.SerializationFeature;
import tools.jackson.databind.json.JsonMapper;

/** Writes a command's rows as a JSON list. */
final class Rows {
  private static final JsonMapper JSON =
      JsonMapper.builder().enable(SerializationFeature.INDENT_OUTPUT).build();

  private Rows() {}

  /** Fails before any work is done if the file could not be written. */
  static void requireWritable(Path file) throws IOException {
    Path parent = file.toAbsolutePath().getParent();
    if (Files.isDirectory(file) || parent == null || !Files.isWritable(parent)) {
      throw new IOException("cannot write " + file + "; give a file in a directory that exists");
    }
  }

  static void write(Path file, List<?> rows) throws IOException {
    Files.writeString(file, JSON.writeValueAsString(rows) + System.lineSeparator());
  }
}
