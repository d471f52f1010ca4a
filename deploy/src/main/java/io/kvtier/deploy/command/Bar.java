package io.kvtier.deploy.command;

import java.io.Console;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/** A progress bar on standard error; where that is no terminal, a line now and then. */
final class Bar implements AutoCloseable {
  private static final int TERMINAL_INTERVAL_MS = 200;
  private static final int FILE_INTERVAL_MS = 5000;

  private final ProgressBar bar;

  /** There is no console where standard input or output is redirected, whatever the check says. */
  @SuppressWarnings("SystemConsoleNull")
  Bar(String task) {
    Console console = System.console();
    boolean terminal = console != null && console.isTerminal();
    this.bar =
        new ProgressBarBuilder()
            .setTaskName(task)
            .setInitialMax(1)
            .setStyle(ProgressBarStyle.ASCII)
            .setUpdateIntervalMillis(terminal ? TERMINAL_INTERVAL_MS : FILE_INTERVAL_MS)
            .setMaxRenderedLength(terminal ? -1 : 100)
            .build();
  }

  void at(long done, long total, String what) {
    bar.maxHint(total);
    bar.stepTo(done);
    bar.setExtraMessage(what);
  }

  @Override
  public void close() {
    bar.close();
  }
}
