package io.kvtier.cachetier.cache;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.cachetier.Recovery;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.page.Pages;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A full tier comes back with all its pages and its index in a bounded time. */
@Timeout(value = 600, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
final class RestartTest {
  private static final long BYTES = Long.getLong("kvtier.restart.bytes", 64 << 20);
  private static final long OPEN_MS_MAX = 10_000;

  @TempDir Path home;

  private void check(String what, FilledCache.Report report, boolean clean) {
    long begun = System.nanoTime();
    ChroniclePageStore store = ChroniclePageStore.open(home, BYTES);
    try (PageCache cache = FilledCache.cacheOver(store)) {
      long openMs = (System.nanoTime() - begun) / 1_000_000;
      System.out.printf("%s: %d bytes open in %d ms%n", what, cache.bytesUsed(), openMs);
      assertThat(store.recovery())
          .isEqualTo(clean ? Recovery.NONE : new Recovery(report.pages(), 0));
      assertThat(cache.pages()).isEqualTo(report.pages());
      assertThat(cache.evictable()).isEqualTo(report.pages());
      for (int index = 0; index < report.pages(); index++) {
        Pages.Flaw flaw =
            cache.read(
                FilledCache.keyOf(index), (page, at, length) -> Pages.verify(page, at, length));
        assertThat(flaw).isEqualTo(Pages.Flaw.NONE);
      }
      assertThat(openMs).isLessThan(OPEN_MS_MAX);
    }
  }

  @Test
  void afterAClose() throws Exception {
    check("after a close", FilledCache.fill(home.toString(), BYTES, false), true);
  }

  @Test
  void afterTheProcessWasKilled() throws Exception {
    check("after a kill", FilledCache.fill(home.toString(), BYTES, true), false);
  }
}
