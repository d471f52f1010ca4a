package io.kvtier.deploy.command;

import java.util.concurrent.CountDownLatch;

/** Keeps a service up until the process is asked to end, then closes it. */
final class Running {
  private Running() {}

  /** Blocks until SIGINT or SIGTERM; the service is closed by then. */
  static void untilSignal(AutoCloseable service) throws InterruptedException {
    CountDownLatch closed = new CountDownLatch(1);
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  try {
                    service.close();
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
