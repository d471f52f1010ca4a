package io.kvtier.deploy.engine;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.SortedMap;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/**
 * The tensors of model.safetensors, or of the shards that model.safetensors.index.json names.
 *
 * <p>A file is 8 bytes of header length (little-endian), the header as JSON, then data; offsets in
 * the header count from the data's start. Nothing in a file is trusted: lengths, offsets, shapes
 * and types are checked before a byte of data is touched. Files are mapped, not read; the mapping
 * ends with {@link #close}, and every returned array is a copy.
 */
final class Safetensors implements AutoCloseable {
  /** The format's own bound. */
  private static final long HEADER_BYTES_MAX = 100_000_000;

  private static final int SHARDS_MAX = 1024;
  private static final int RANK_MAX = 8;
  private static final long DIGEST_SLICE_BYTES = 1 << 30;
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfLong LONG =
      ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private enum Type {
    F32(4),
    F16(2),
    BF16(2);

    final int bytes;

    Type(int bytes) {
      this.bytes = bytes;
    }
  }

  private record Tensor(String file, Type type, List<Long> shape, MemorySegment data) {}

  private final Arena arena;
  private final SortedMap<String, Tensor> tensors = new TreeMap<>();

  private Safetensors(Arena arena) {
    this.arena = arena;
  }

  /** Maps the weights of a model directory. */
  static Safetensors open(Path directory) throws IOException {
    Path single = directory.resolve("model.safetensors");
    Path index = directory.resolve("model.safetensors.index.json");
    Safetensors opened = new Safetensors(Arena.ofShared());
    try {
      if (Files.isRegularFile(single)) {
        opened.map(single);
      } else if (Files.isRegularFile(index)) {
        opened.mapShards(directory, index);
      } else {
        throw new ModelFormatException(
            directory + " has neither model.safetensors nor model.safetensors.index.json");
      }
      return opened;
    } catch (IOException | RuntimeException e) {
      opened.close();
      throw e;
    }
  }

  private void mapShards(Path directory, Path index) throws IOException {
    JsonNode map = json(index.getFileName().toString(), Files.readString(index)).path("weight_map");
    if (!map.isObject() || map.isEmpty()) {
      throw new ModelFormatException(index.getFileName() + ": weight_map is absent or empty");
    }
    SortedSet<String> files = new TreeSet<>();
    for (Map.Entry<String, JsonNode> entry : map.properties()) {
      String file = entry.getValue().isString() ? entry.getValue().stringValue() : "";
      // A shard lies beside its index; a path elsewhere is an attack or a mistake.
      if (!file.endsWith(".safetensors") || file.contains("/") || file.contains("\\")) {
        throw new ModelFormatException(
            "%s: %s lies in '%s', must be a plain file name ending in .safetensors"
                .formatted(index.getFileName(), entry.getKey(), file));
      }
      files.add(file);
    }
    if (files.size() > SHARDS_MAX) {
      throw new ModelFormatException(
          "%s: names %d shards, at most %d"
              .formatted(index.getFileName(), files.size(), SHARDS_MAX));
    }
    for (String file : files) {
      if (!Files.isRegularFile(directory.resolve(file))) {
        throw new ModelFormatException(
            "%s: names %s, which is missing; fetch it".formatted(index.getFileName(), file));
      }
      map(directory.resolve(file));
    }
    for (Map.Entry<String, JsonNode> entry : map.properties()) {
      Tensor tensor = tensors.get(entry.getKey());
      if (tensor == null || !tensor.file().equals(entry.getValue().stringValue())) {
        throw new ModelFormatException(
            "%s: %s should be in %s but is not"
                .formatted(index.getFileName(), entry.getKey(), entry.getValue().stringValue()));
      }
    }
  }

  private void map(Path path) throws IOException {
    String file = path.getFileName().toString();
    MemorySegment bytes;
    try (FileChannel channel = FileChannel.open(path, StandardOpenOption.READ)) {
      bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena);
    }
    if (bytes.byteSize() < 8) {
      throw new ModelFormatException(
          "%s: has %d bytes, a header needs 8: truncated".formatted(file, bytes.byteSize()));
    }
    long headerBytes = bytes.get(LONG, 0);
    if (headerBytes < 2 || headerBytes > Math.min(HEADER_BYTES_MAX, bytes.byteSize() - 8)) {
      throw new ModelFormatException(
          "%s: header of %d bytes, must be within 2 to %d: corrupt or truncated"
              .formatted(file, headerBytes, Math.min(HEADER_BYTES_MAX, bytes.byteSize() - 8)));
    }
    byte[] header = bytes.asSlice(8, headerBytes).toArray(ValueLayout.JAVA_BYTE);
    MemorySegment data = bytes.asSlice(8 + headerBytes);
    JsonNode root = json(file, new String(header, StandardCharsets.UTF_8));
    if (!root.isObject()) {
      throw new ModelFormatException(file + ": header is not a JSON object: corrupt");
    }
    for (Map.Entry<String, JsonNode> entry : root.properties()) {
      if (entry.getKey().equals("__metadata__")) {
        continue;
      }
      Tensor tensor = tensor(file, entry.getKey(), entry.getValue(), data);
      if (tensors.put(entry.getKey(), tensor) != null) {
        throw new ModelFormatException(file + ": " + entry.getKey() + " is in two shards");
      }
    }
  }

  private static Tensor tensor(String file, String name, JsonNode node, MemorySegment data) {
    String dtype = node.path("dtype").isString() ? node.path("dtype").stringValue() : "absent";
    Type type =
        switch (dtype) {
          case "F32" -> Type.F32;
          case "F16" -> Type.F16;
          case "BF16" -> Type.BF16;
          default ->
              throw new ModelFormatException(
                  "%s: %s has dtype %s, only F32, F16 and BF16 are read"
                      .formatted(file, name, dtype));
        };
    List<Long> shape = longs(file, name, node.path("shape"));
    List<Long> offsets = longs(file, name, node.path("data_offsets"));
    if (shape.size() > RANK_MAX) {
      throw new ModelFormatException(
          "%s: %s has %d dimensions, at most %d".formatted(file, name, shape.size(), RANK_MAX));
    }
    long begin = offsets.size() == 2 ? offsets.getFirst() : -1;
    long end = offsets.size() == 2 ? offsets.getLast() : -1;
    if (begin < 0 || end < begin || end > data.byteSize()) {
      throw new ModelFormatException(
          "%s: %s has data_offsets %s, must be [begin, end] within 0 to %d: corrupt or truncated"
              .formatted(file, name, offsets, data.byteSize()));
    }
    long bytes = type.bytes;
    try {
      for (long extent : shape) {
        bytes = Math.multiplyExact(bytes, extent);
      }
    } catch (ArithmeticException e) {
      bytes = -1;
    }
    if (bytes != end - begin) {
      throw new ModelFormatException(
          "%s: %s of %s%s needs %d bytes but its offsets give %d: corrupt"
              .formatted(file, name, type, shape, bytes, end - begin));
    }
    return new Tensor(file, type, shape, data.asSlice(begin, end - begin));
  }

  private static List<Long> longs(String file, String name, JsonNode node) {
    if (!node.isArray()) {
      throw new ModelFormatException("%s: %s lacks shape or data_offsets".formatted(file, name));
    }
    Long[] values = new Long[node.size()];
    for (int i = 0; i < values.length; i++) {
      JsonNode value = node.path(i);
      if (!value.isIntegralNumber() || !value.canConvertToLong() || value.longValue() < 0) {
        throw new ModelFormatException(
            "%s: %s has %s where a size must be: corrupt".formatted(file, name, value));
      }
      values[i] = value.longValue();
    }
    return List.of(values);
  }

  private static JsonNode json(String file, String text) {
    try {
      return JsonMapper.shared().readTree(text);
    } catch (JacksonException e) {
      throw new ModelFormatException(file + ": not JSON where JSON must be: corrupt", e);
    }
  }

  /** Names of all tensors, sorted. */
  SortedSet<String> names() {
    return Collections.unmodifiableSortedSet(new TreeSet<>(tensors.keySet()));
  }

  /**
   * A tensor as fp32, row-major. Conversions from F16 (subnormals included) and BF16 are exact.
   *
   * @throws ModelFormatException if it is absent, of another shape, or larger than an array
   */
  float[] floats(String name, long... shape) {
    Tensor tensor = tensors.get(name);
    if (tensor == null) {
      throw new ModelFormatException(
          name
              + " is missing, expected shape "
              + Arrays.toString(shape)
              + "; the directory is incomplete");
    }
    List<Long> expected = Arrays.stream(shape).boxed().toList();
    if (!tensor.shape().equals(expected)) {
      throw new ModelFormatException(
          "%s: %s has shape %s, config.json asks for %s"
              .formatted(tensor.file(), name, tensor.shape(), expected));
    }
    long count = tensor.data().byteSize() / tensor.type().bytes;
    if (count > Integer.MAX_VALUE - 8) {
      throw new ModelFormatException(
          "%s: %s has %d values, at most 2^31 - 9 are read".formatted(tensor.file(), name, count));
    }
    float[] values = new float[(int) count];
    MemorySegment data = tensor.data();
    switch (tensor.type()) {
      case F32 -> MemorySegment.copy(data, FLOAT, 0, values, 0, values.length);
      case F16 -> {
        for (int i = 0; i < values.length; i++) {
          values[i] = Float.float16ToFloat(data.get(SHORT, 2L * i));
        }
      }
      case BF16 -> {
        for (int i = 0; i < values.length; i++) {
          values[i] = Float.intBitsToFloat(data.get(SHORT, 2L * i) << 16);
        }
      }
    }
    return values;
  }

  /**
   * Feeds names, types, shapes and bytes of all tensors, in name order, so that sharding is unseen.
   */
  void digest(MessageDigest digest) {
    tensors.forEach((name, tensor) -> {
      String line = name + ' ' + tensor.type() + ' ' + tensor.shape() + '\n';
      digest.update(line.getBytes(StandardCharsets.UTF_8));
      long bytes = tensor.data().byteSize();
      for (long at = 0; at < bytes; at += DIGEST_SLICE_BYTES) {
        long slice = Math.min(DIGEST_SLICE_BYTES, bytes - at);
        digest.update(tensor.data().asSlice(at, slice).asByteBuffer());
      }
    });
  }

  /** Unmaps the files. Idempotent. */
  @Override
  public void close() {
    if (arena.scope().isAlive()) {
      arena.close();
    }
  }
}
