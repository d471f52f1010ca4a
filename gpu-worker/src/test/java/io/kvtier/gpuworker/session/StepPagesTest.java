package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.TenantName;
import io.kvtier.gpuworker.core.MeasuredRates;
import io.kvtier.gpuworker.device.CodesTaker;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.Executor;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/** Pages of streamed heads on their way through. */
class StepPagesTest extends SessionFixture {
  private static final int TOKENS = 64 * 7;
  private static final int SLOTS = 4;

  private final List<String> events = new ArrayList<>();

  /** Two streamed heads; tells what is done when. */
  private final class Taker implements CodesTaker {
    @Override
    public int rowSections(int kvHead) {
      return 0;
    }

    @Override
    public boolean streams(int kvHead) {
      return true;
    }

    @Override
    public int chosenCount(int kvHead) {
      return 0;
    }

    @Override
    public int chosenPosition(int kvHead, int index) {
      throw new AssertionError("nothing is chosen");
    }

    @Override
    public void giveRow(int kvHead, int index, DeviceSlot rows, int offset) {
      throw new AssertionError("nothing is chosen");
    }

    @Override
    public void forgetRows() {}

    @Override
    public void attendRows() {}

    @Override
    public int attendedCount(int kvHead) {
      return 0;
    }

    @Override
    public void attendPages(int[] pages, int[] kvHeads, DeviceSlot[] codes, int count) {
      events.add("attend " + pages[0]);
    }

    @Override
    public void attendResident() {
      events.add("resident");
    }
  }

  /** Parts of a page of both heads: the next is asked for before one is attended to. */
  @Test
  void theNextPartIsOnItsWayWhileOneIsAttendedTo() {
    Session info = info(HeadClass.HEAD_CLASS_STREAMED, 0);
    WorkerSession session = filled(info, TOKENS);
    LayerShape shape = session.shape();
    UUID id = UUID.fromString(info.getSessionId());
    List<PageKey> keys =
        IntStream.range(0, shape.pages(TOKENS))
            .mapToObj(page -> PageKey.ofSession(id, page, shape.fingerprint(), 0, shape.layout()))
            .toList();
    assertThat(keys).hasSize(6);
    WriteBehind stored =
        new WriteBehind(
            tier,
            TenantName.DEFAULT,
            new SharedPages(tier, id),
            background,
            new int[1],
            1 << 20,
            new PendingBytes(16 << 20).newShare(),
            1_000_000_000);
    CodesFetcher fetcher =
        new CodesFetcher(shape, device.memory(), tier, stored, new MeasuredRates());
    Executor executor =
        fetch -> {
          events.add("fetch");
          fetch.run();
        };
    StepPages pages;
    try (Staging staging = new Staging(device.memory(), LayerStep.stagingSlotBytes(shape), 0);
        Staging.Lease lease = staging.lease(SLOTS)) {
      pages = new StepPages(new Taker(), keys, fetcher, executor, lease, StepNear.NOTHING);
      pages.give(shape, 0);
    }
    assertThat(events)
        .containsExactly(
            "fetch",
            "resident",
            "fetch",
            "attend 0",
            "fetch",
            "attend 1",
            "fetch",
            "attend 2",
            "fetch",
            "attend 3",
            "fetch",
            "attend 4",
            "attend 5");
    assertThat(pages.stagedBytes()).isEqualTo((long) SLOTS * LayerStep.stagingSlotBytes(shape));
    session.close();
  }
}
