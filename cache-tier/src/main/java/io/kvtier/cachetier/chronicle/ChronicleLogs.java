package io.kvtier.cachetier.chronicle;

import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * Keeps Chronicle's notices (timings of its start, advice on its settings) off the console: only
 * its errors are logged, unless a level has been configured for its loggers.
 */
final class ChronicleLogs {
  /** Held, because the log manager would forget the level of a logger that nobody holds. */
  private static final Logger CHRONICLE = Logger.getLogger("net.openhft");

  private ChronicleLogs() {}

  static void quieten() {
    if (CHRONICLE.getLevel() == null) {
      CHRONICLE.setLevel(Level.SEVERE);
    }
  }
}
