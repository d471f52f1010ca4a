package io.kvtier.deploy.engine;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Greedy longest match over bytes, as TOKENIZER.md says: no merges, no normalisation, no
 * pre-splitting. Line i of vocab.hex is the bytes of id i; ids 0 to 255 are the single bytes, so
 * that every text can be encoded. Immutable.
 */
public final class Tokenizer {
  private static final int VOCAB_MAX = 1 << 20;
  private static final int TOKEN_BYTES_MAX = 256;

  private final List<byte[]> tokens;
  private final Map<String, Integer> ids = new HashMap<>();
  private final int longest;

  private Tokenizer(List<byte[]> tokens) {
    this.tokens = tokens;
    int bytes = 1;
    for (int id = 0; id < tokens.size(); id++) {
      // A byte becomes the character of its value, so that a string stands for the bytes.
      ids.put(new String(tokens.get(id), StandardCharsets.ISO_8859_1), id);
      bytes = Math.max(bytes, tokens.get(id).length);
    }
    this.longest = bytes;
  }

  /** Reads vocab.hex of a model directory; empty where there is none. */
  public static Optional<Tokenizer> read(Path directory) throws IOException {
    Path file = directory.resolve("vocab.hex");
    if (!Files.isRegularFile(file)) {
      return Optional.empty();
    }
    List<String> lines = Files.readAllLines(file, StandardCharsets.ISO_8859_1);
    if (lines.size() < 256 || lines.size() > VOCAB_MAX) {
      throw new ModelFormatException(
          "vocab.hex has %d lines, must be within 256 to %d".formatted(lines.size(), VOCAB_MAX));
    }
    byte[][] tokens = new byte[lines.size()][];
    for (int id = 0; id < tokens.length; id++) {
      tokens[id] = parse(id, lines.get(id));
    }
    return Optional.of(new Tokenizer(List.of(tokens)));
  }

  private static byte[] parse(int id, String line) {
    byte[] bytes;
    try {
      bytes = HexFormat.of().parseHex(line);
    } catch (IllegalArgumentException e) {
      throw new ModelFormatException(
          "vocab.hex line %d: '%s' is not hexadecimal".formatted(id + 1, line), e);
    }
    if (bytes.length < 1 || bytes.length > TOKEN_BYTES_MAX) {
      throw new ModelFormatException(
          "vocab.hex line %d: %d bytes, must be within 1 to %d"
              .formatted(id + 1, bytes.length, TOKEN_BYTES_MAX));
    }
    if (id < 256 && (bytes.length != 1 || (bytes[0] & 0xff) != id)) {
      throw new ModelFormatException(
          "vocab.hex line %d: is %s, must be the single byte %02x".formatted(id + 1, line, id));
    }
    return bytes;
  }

  /** Number of token ids. */
  public int vocabSize() {
    return tokens.size();
  }

  /** Encodes the UTF-8 bytes of a text; no beginning-of-sequence id is put before them. */
  public int[] encode(String text) {
    String bytes = new String(text.getBytes(StandardCharsets.UTF_8), StandardCharsets.ISO_8859_1);
    int[] encoded = new int[bytes.length()];
    int count = 0;
    int at = 0;
    while (at < bytes.length()) {
      int length = Math.min(longest, bytes.length() - at);
      Integer id = ids.get(bytes.substring(at, at + length));
      while (id == null) {
        length--;
        id = ids.get(bytes.substring(at, at + length));
      }
      encoded[count++] = id;
      at += length;
    }
    return Arrays.copyOf(encoded, count);
  }

  /** The text of ids; bytes that are not UTF-8 become U+FFFD. */
  public String decode(int... encoded) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    for (int id : encoded) {
      if (id < 0 || id >= tokens.size()) {
        throw new IllegalArgumentException(
            "token id " + id + " is not within 0 to " + (tokens.size() - 1));
      }
      bytes.writeBytes(tokens.get(id));
    }
    return bytes.toString(StandardCharsets.UTF_8);
  }
}
