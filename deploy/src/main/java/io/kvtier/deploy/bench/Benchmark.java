package io.kvtier.deploy.bench;

import java.util.List;

/**
 * A benchmark that {@code kvtier bench NAME} runs. Ours and the reference are measured in turns
 * within one run.
 */
public interface Benchmark {
  /** Name on the command line. */
  String name();

  /** One line for people. */
  String description();

  /** Measures; hears of no interruption, so keep it within a few minutes. */
  List<BenchRow> run(BenchSettings settings, Progress progress);

  /** Hears how far a run is, on the caller's thread. */
  interface Progress {
    /** {@code done} of {@code total} rounds are done; {@code what} is being measured. */
    void at(long done, long total, String what);
  }

  /** The command that reproduces this benchmark's rows. */
  default String command() {
    return "./kvtier bench " + name();
  }
}
