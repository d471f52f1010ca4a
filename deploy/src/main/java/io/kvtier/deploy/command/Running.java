package io.kvtier.deploy.command;

import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.function.Supplier;

/** Keeps a service up until the process is asked to end, then closes it. */
final class Running {
  private Running() {}

  /** Blocks until SIGINT or SIGTERM; the service is closed by then. */
  static void untilSignal(AutoCloseable service) throws InterruptedException {
    untilSignal(service, Optional::empty);
  }

  /** The same; {@code lastWord} is asked once the service is closed, and printed. */
  static void untilSignal(AutoCloseable service, Supplier<Optional<String>> lastWord)
      throws InterruptedException {
    CountDownLatch closed = new CountDownLatch(1);
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  try {
                    service.close();
                    lastWord.get().ifPresent(System.out::println);
                  } catch (Exception e) {
                    System.err.println("kvtier: not everything could be closed: " + e.getMessage());
                  } finally {
                    closed.countDown();
                  }
                },
                "kvtier-shutdown"));
    closed.await();
  }
}
