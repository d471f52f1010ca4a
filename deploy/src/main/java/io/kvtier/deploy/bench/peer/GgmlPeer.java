package io.kvtier.deploy.bench.peer;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * ggml's CPU flash attention ({@code ggml_flash_attn_ext}: one query a q head, K and V of one
 * dtype, each KV head's rows contiguous, which is the order that ggml is fastest with), as the npm
 * package {@value #PACKAGE} ships it. ggml runs in a child process, driven through
 * integration-tests/peers/ggml/GgmlFlashAttention.java; its threads exist only during {@link
 * #secondsPerRun}. At most one call is prepared. One thread at a time.
 */
public final class GgmlPeer implements AutoCloseable {
  /** What a benchmark may install. */
  public static final String PACKAGE = "@node-llama-cpp/linux-x64";

  /** The exact version of {@link #PACKAGE}. */
  public static final String VERSION = "3.22.1";

  private static final NpmPackage NPM_PACKAGE = new NpmPackage(PACKAGE, VERSION, "ggml");
  private static final Path LIBRARIES = Path.of("bins", "linux-x64");
  private static final Path HARNESS =
      Path.of("integration-tests", "peers", "ggml", "GgmlFlashAttention.java");
  private static final Duration INSTALL_TIMEOUT = Duration.ofMinutes(5);
  private static final Duration START_TIMEOUT = Duration.ofMinutes(1);
  private static final Duration ANSWER_TIMEOUT = Duration.ofMinutes(2);

  /** Types of K and V. */
  public enum Dtype {
    /** 16 bits a value. */
    F16,
    /** 8 bits a value, and a 16-bit scale for 32 values. */
    Q8_0,
    /** 4 bits a value, and a 16-bit scale for 32 values. */
    Q4_0
  }

  private final LineProcess process;
  private final Duration answerTimeout;
  private final String version;

  private GgmlPeer(LineProcess process, Duration startTimeout, Duration answerTimeout) {
    this.process = process;
    this.answerTimeout = answerTimeout;
    this.version = rest("ready", process.awaitLine("start", startTimeout));
  }

  /**
   * Starts the peer; installs the package first if it is not there, which takes some seconds and
   * the network. UNAVAILABLE says what is missing.
   *
   * @param home kvtier's directory
   * @param installDirectory see {@link #defaultInstallDirectory}
   */
  public static GgmlPeer start(Path home, Path installDirectory) {
    Path harness = home.resolve(HARNESS).toAbsolutePath();
    if (!Files.isRegularFile(harness)) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "there is no " + harness + "; the ggml peer needs kvtier's source tree");
    }
    requirePlatform(System.getProperty("os.name"), System.getProperty("os.arch"));
    Path installed = NPM_PACKAGE.install("npm", installDirectory.toAbsolutePath(), INSTALL_TIMEOUT);
    return launch(harness, installed.resolve(LIBRARIES), START_TIMEOUT, ANSWER_TIMEOUT);
  }

  /** kvtier's directory under the user's cache directory. */
  public static Path defaultInstallDirectory() {
    return cacheDirectory(System.getenv("XDG_CACHE_HOME")).resolve("kvtier");
  }

  private static Path cacheDirectory(@Nullable String xdgCacheHome) {
    // A relative path there is invalid by the XDG specification, and to be ignored.
    return xdgCacheHome != null && Path.of(xdgCacheHome).isAbsolute()
        ? Path.of(xdgCacheHome)
        : Path.of(System.getProperty("user.home"), ".cache");
  }

  static void requirePlatform(String system, String architecture) {
    if (!system.equals("Linux") || !architecture.equals("amd64")) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "the ggml peer is %s, which is for Linux on x86-64; this is %s on %s"
              .formatted(PACKAGE, system, architecture));
    }
  }

  /** Starts {@code harness}, a Java file, with this JDK. */
  static GgmlPeer launch(
      Path harness, Path libraries, Duration startTimeout, Duration answerTimeout) {
    List<String> command =
        List.of(
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "--enable-native-access=ALL-UNNAMED",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:-CreateCoredumpOnCrash",
            "-XX:+ErrorFileToStderr",
            harness.toString(),
            libraries.toString());
    // When an assertion of ggml fails it would start a debugger for its trace.
    Map<String, String> environment = Map.of("GGML_NO_BACKTRACE", "1");
    Path directory = Path.of(System.getProperty("java.io.tmpdir"));
    LineProcess process = new LineProcess("ggml", command, environment, directory);
    try {
      return new GgmlPeer(process, startTimeout, answerTimeout);
    } catch (RuntimeException e) {
      process.close();
      throw e;
    }
  }

  /** ggml's version, commit and the CPU library that it chose, as it says itself. */
  public String version() {
    return version;
  }

  /**
   * Fills K and V with normal values in ggml's own rounding, and builds the graph. What was
   * prepared before is released.
   *
   * @param headDim a multiple of 32
   */
  public void prepare(Dtype dtype, int tokens, int qHeads, int kvHeads, int headDim, int threads) {
    requireInRange("tokens", tokens, 1, 1 << 24);
    requireInRange("qHeads", qHeads, 1, 1024);
    requireInRange("kvHeads", kvHeads, 1, 1024);
    requireInRange("headDim", headDim, 32, 1024);
    requireInRange("threads", threads, 1, 512);
    String name = dtype.name().toLowerCase(Locale.ROOT);
    expect(
        "ok",
        "prepare %s %d %d %d %d %d".formatted(name, tokens, qHeads, kvHeads, headDim, threads));
  }

  /** Computes {@code runs} times what was prepared; the mean of the runs. */
  public double secondsPerRun(int runs) {
    requireInRange("runs", runs, 1, 1_000_000);
    return number(expect("ns", "run " + runs)) / 1e9 / runs;
  }

  /**
   * Computes once and compares the last head with attention in double precision over the same
   * decoded rows. Returns the largest difference as a share of the largest value; fails when it is
   * more than rounding explains (f16 sums values in fp16, which over 131,072 tokens costs some
   * percent).
   */
  public double check() {
    return number(expect("ok", "check"));
  }

  /** Frees what was prepared. */
  public void release() {
    expect("ok", "release");
  }

  /** Sends a command; what follows {@code word} in the answer. */
  private String expect(String word, String line) {
    String answer = process.ask(line, answerTimeout);
    if (answer.startsWith("error ")) {
      throw new KvtierException(
          Code.UNAVAILABLE, "ggml refused '" + line + "': " + rest("error", answer));
    }
    return rest(word, answer);
  }

  private static String rest(String word, String answer) {
    if (!answer.equals(word) && !answer.startsWith(word + " ")) {
      throw new KvtierException(
          Code.INTERNAL, "ggml's harness answered '" + answer + "', not '" + word + " ...'");
    }
    return answer.substring(word.length()).strip();
  }

  private static double number(String text) {
    try {
      return Double.parseDouble(text);
    } catch (NumberFormatException e) {
      throw new KvtierException(
          Code.INTERNAL, "ggml's harness answered '" + text + "', which is no number", e);
    }
  }

  /** Ends the child process, within seconds. */
  @Override
  public void close() {
    process.close();
  }
}
