package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.TenantName;
import io.kvtier.gpuworker.session.FaultyTransport.Fault;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Pages on their way to a tier that is away, or full. */
@Timeout(30)
class WriteBehindTest {
  private static final PageLayout LAYOUT = new PageLayout(Codec.RAW16, Codec.RAW16, 1, 64);
  private static final ByteString PAGE = ByteString.copyFrom(new byte[LAYOUT.pageLength()]);
  private static final int ROOM = 3;
  private static final long TIMEOUT_NS = TimeUnit.MILLISECONDS.toNanos(300);

  private final ExecutorService background = Executors.newVirtualThreadPerTaskExecutor();
  private final FaultyTransport tier = new FaultyTransport(LAYOUT);
  private final WriteBehind pages =
      new WriteBehind(
          tier,
          TenantName.DEFAULT,
          new SharedPages(tier, new UUID(1, 2)),
          background,
          new int[1],
          (long) ROOM * LAYOUT.pageLength(),
          new PendingBytes(16 << 20).newShare(),
          TIMEOUT_NS);
  private int made;

  @AfterEach
  void close() {
    pages.close();
    background.close();
  }

  private void add() {
    try (var _ = pages.requireRoom(LAYOUT.pageLength())) {
      PageKey key = PageKey.ofSession(new UUID(1, 2), made++, new Fingerprint(3, 4), 0, LAYOUT);
      pages.enqueue(0, key, PAGE);
    }
  }

  private static void refused(Code code, Runnable call) {
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).as("%s", e).isEqualTo(code));
  }

  /** Who adds does not hear of it as long as there is room, and waits no longer than it may. */
  @Test
  void whileTheTierIsAwayPagesWaitAndAreStoredByThemselvesOnceItIsBack() {
    tier.fault = Fault.AWAY;
    for (int i = 0; i < ROOM; i++) {
      add();
    }
    assertThat(pages.durablePages(0)).isZero();
    long startNs = System.nanoTime();
    refused(Code.UNAVAILABLE, this::add);
    refused(Code.UNAVAILABLE, pages::flush);
    assertThat(System.nanoTime() - startNs).isGreaterThanOrEqualTo(2 * TIMEOUT_NS);
    tier.fault = Fault.NONE;
    while (pages.durablePages(0) < ROOM) {
      Thread.onSpinWait();
    }
    pages.flush();
    add();
  }

  /**
   * Storing is nothing that a caller waits for, until so much waits that the tier does not keep up.
   */
  @Test
  void pagesAreStoredBehindWhoAddsThemUpToABound() {
    tier.puts = new CountDownLatch(1);
    for (int i = 0; i < ROOM; i++) {
      add();
    }
    assertThat(pages.pendingBytes()).isEqualTo((long) ROOM * LAYOUT.pageLength());
    assertThat(pages.durablePages(0)).isZero();
    refused(Code.EXHAUSTED, this::add);
    assertThat(pages.pendingBytes()).isEqualTo((long) ROOM * LAYOUT.pageLength());
    tier.puts.countDown();
    pages.flush();
    assertThat(pages.pendingBytes()).isZero();
    assertThat(pages.durablePages(0)).isEqualTo(ROOM);
  }

  @Test
  void whoWaitsForRoomGetsItWhenTheTierComesBack() throws Exception {
    tier.fault = Fault.AWAY;
    for (int i = 0; i < ROOM; i++) {
      add();
    }
    Thread back =
        Thread.ofVirtual()
            .start(() -> {
              tier.fault = Fault.NONE;
            });
    add();
    back.join();
    pages.flush();
    assertThat(tier.pages).hasSize(ROOM + 1);
  }

  /** Nobody but the caller can say what is to become of it. */
  @Test
  void aRefusalIsToldAtOnceAndThePutTriedAgainThen() {
    tier.fault = Fault.FULL;
    add();
    while (true) {
      try {
        pages.requireRoom(LAYOUT.pageLength()).close();
      } catch (KvtierException e) {
        assertThat(e.code()).isEqualTo(Code.EXHAUSTED);
        break;
      }
    }
    tier.fault = Fault.NONE;
    try {
      pages.flush();
    } catch (KvtierException e) {
      // Tried again while the tier was still full.
      assertThat(e.code()).isEqualTo(Code.EXHAUSTED);
      pages.flush();
    }
    assertThat(tier.pages).hasSize(1);
  }
}
