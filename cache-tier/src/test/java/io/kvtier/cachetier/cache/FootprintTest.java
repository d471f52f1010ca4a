package io.kvtier.cachetier.cache;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/**
 * What a full tier takes beside its pages: blocks of its files or memory, and the index on the
 * heap.
 */
@EnabledOnOs(OS.LINUX)
@Timeout(value = 600, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class FootprintTest {
  private static final long BYTES = Long.getLong("kvtier.footprint.bytes", 128 << 20);
  private static final double OVER_PAYLOAD_MAX = 1.2;

  @TempDir Path home;

  private static void check(String what, FilledCache.Report report, long bytes) {
    double ratio = (double) (bytes + report.heap()) / report.payload();
    System.out.printf(
        "%s: %d pages, %d bytes of pages, %d outside the heap, %d on it (%d a page): %.3f%n",
        what,
        report.pages(),
        report.payload(),
        bytes,
        report.heap(),
        report.heap() / report.pages(),
        ratio);
    assertThat(report.payload()).isGreaterThan(BYTES - FilledCache.LAYOUT.pageLength());
    // The least is there to see that something was measured: blocks may lag behind what is written.
    assertThat(ratio).isBetween(.9, OVER_PAYLOAD_MAX);
  }

  @Test
  void filesAndIndexTakeLittleMoreThanThePages() throws Exception {
    FilledCache.Report report = FilledCache.fill(home.toString(), BYTES, false);
    check("files", report, blocks());
  }

  @Test
  void memoryAndIndexTakeLittleMoreThanThePages() throws Exception {
    FilledCache.Report report = FilledCache.fill("memory", BYTES, false);
    check("memory", report, report.resident());
  }

  /** Bytes of the blocks that the files use. */
  private long blocks() throws Exception {
    Process du = new ProcessBuilder("du", "-s", "-B1", home.toString()).start();
    String line = new String(du.getInputStream().readAllBytes(), UTF_8);
    assertThat(du.waitFor()).isZero();
    return Long.parseLong(line.substring(0, line.indexOf('\t')));
  }
}
