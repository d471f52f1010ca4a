package io.kvtier.deploy.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class SafetensorsTest {
  @TempDir Path directory;

  @Test
  void everyHalfIsConvertedExactly() throws IOException {
    byte[] data = new byte[2 << 16];
    ByteBuffer out = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN);
    for (int bits = 0; bits < 1 << 16; bits++) {
      out.putShort((short) bits);
    }
    write("{\"h\":{\"dtype\":\"F16\",\"shape\":[256,256],\"data_offsets\":[0,131072]}}", data);
    try (Safetensors tensors = Safetensors.open(directory)) {
      float[] values = tensors.floats("h", 256, 256);
      for (int bits = 0; bits < 1 << 16; bits++) {
        // As bits, so that not-a-number equals itself and the two zeros differ.
        assertThat(Float.floatToIntBits(values[bits]))
            .as("bits %04x", bits)
            .isEqualTo(Float.floatToIntBits(half(bits)));
      }
    }
    write("{\"b\":{\"dtype\":\"BF16\",\"shape\":[65536],\"data_offsets\":[0,131072]}}", data);
    try (Safetensors tensors = Safetensors.open(directory)) {
      float[] values = tensors.floats("b", 65536);
      assertThat(values[0x3f80]).isEqualTo(1f);
      assertThat(values[0xc049]).isEqualTo(-3.140625f);
      assertThat(values[1]).isEqualTo(Float.intBitsToFloat(1 << 16));
      assertThat(values[0x7f80]).isEqualTo(Float.POSITIVE_INFINITY);
    }
  }

  /** Straight from the definition of binary16. */
  private static float half(int bits) {
    double sign = bits >> 15 == 0 ? 1 : -1;
    int exponent = bits >> 10 & 31;
    int mantissa = bits & 1023;
    if (exponent == 31) {
      return mantissa == 0 ? (float) (sign * Double.POSITIVE_INFINITY) : Float.NaN;
    }
    return (float)
        (exponent == 0
            ? sign * mantissa * Math.pow(2, -24)
            : sign * (1024 + mantissa) * Math.pow(2, exponent - 25));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '`',
      value = {
        "{\"t\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}} | dtype I64",
        "{\"t\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}} | needs 12 bytes",
        "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}} | within 0 to 8",
        "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}} | corrupt",
        "{\"t\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}} | has -2",
        "{\"t\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}"
            + " | needs -1 bytes",
        "{\"t\":{\"dtype\":\"F32\",\"shape\":[2]}} | lacks shape or data_offsets",
        "{\"t\":{ | not JSON",
        "[1,2] | not a JSON object",
      })
  void corruptHeadersAreRefused(String header, String message) throws IOException {
    write(header, new byte[8]);
    assertThatThrownBy(() -> Safetensors.open(directory))
        .isInstanceOf(ModelFormatException.class)
        .hasMessageContaining(message);
  }

  @Test
  void everyTruncationIsRefused() throws IOException {
    Path file =
        write("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", new byte[8]);
    byte[] whole = Files.readAllBytes(file);
    for (int length = 0; length < whole.length; length++) {
      Files.write(file, Arrays.copyOf(whole, length));
      assertThatThrownBy(() -> Safetensors.open(directory))
          .as("first %d bytes", length)
          .isInstanceOf(ModelFormatException.class);
    }
  }

  @Test
  void flippedHeaderBitsNeverEscapeTheFile() throws IOException {
    Path file =
        write("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", new byte[8]);
    byte[] whole = Files.readAllBytes(file);
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 500; round++) {
      byte[] flipped = whole.clone();
      flipped[random.nextInt(flipped.length - 8)] ^= (byte) (1 << random.nextInt(8));
      Files.write(file, flipped);
      try (Safetensors tensors = Safetensors.open(directory)) {
        tensors.floats("t", 2);
      } catch (ModelFormatException e) {
        assertThat(e).as("seed %d", seed).hasMessageNotContaining("null");
      }
    }
  }

  @Test
  void missingAndMisshapenTensorsAreNamed() throws IOException {
    write("{\"t\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]}}", new byte[8]);
    try (Safetensors tensors = Safetensors.open(directory)) {
      assertThatThrownBy(() -> tensors.floats("u", 2)).hasMessageContaining("u is missing");
      assertThatThrownBy(() -> tensors.floats("t", 2))
          .hasMessageContaining("t has shape [1, 2], config.json asks for [2]");
    }
  }

  @Test
  void shardsOutsideTheDirectoryAreRefused() throws IOException {
    Files.writeString(
        directory.resolve("model.safetensors.index.json"),
        "{\"weight_map\":{\"t\":\"../elsewhere.safetensors\"}}");
    assertThatThrownBy(() -> Safetensors.open(directory)).hasMessageContaining("plain file name");
    Files.writeString(
        directory.resolve("model.safetensors.index.json"),
        "{\"weight_map\":{\"t\":\"a.safetensors\"}}");
    assertThatThrownBy(() -> Safetensors.open(directory)).hasMessageContaining("is missing");
  }

  @Test
  void fingerprintSeesWeightsAndConfigButNotSharding() throws IOException {
    RandomLlama.Shape one =
        new RandomLlama.Shape(32, 32, 1, 2, 1, 16, 256, "F32", true, false, 1, "null");
    RandomLlama.Shape sharded =
        new RandomLlama.Shape(32, 32, 1, 2, 1, 16, 256, "F32", true, false, 2, "null");
    String a = fingerprint(new RandomLlama(one, 1), "a");
    assertThat(a).hasSize(32);
    assertThat(fingerprint(new RandomLlama(sharded, 1), "b")).isEqualTo(a);
    assertThat(fingerprint(new RandomLlama(one, 2), "c")).isNotEqualTo(a);
    Path d = Files.createDirectory(directory.resolve("d"));
    RandomLlama same = new RandomLlama(one, 1);
    same.write(d);
    Files.writeString(d.resolve("config.json"), same.config().replace("10000.0", "10001.0"));
    assertThat(HexFormat.of().formatHex(LlamaModel.load(d).fingerprint())).isNotEqualTo(a);
  }

  private String fingerprint(RandomLlama model, String name) throws IOException {
    Path path = model.write(Files.createDirectory(directory.resolve(name)));
    return HexFormat.of().formatHex(LlamaModel.load(path).fingerprint());
  }

  private Path write(String header, byte[] data) throws IOException {
    byte[] json = header.getBytes(StandardCharsets.UTF_8);
    ByteBuffer out =
        ByteBuffer.allocate(8 + json.length + data.length).order(ByteOrder.LITTLE_ENDIAN);
    out.putLong(json.length).put(json).put(data);
    return Files.write(directory.resolve("model.safetensors"), out.array());
  }
}
