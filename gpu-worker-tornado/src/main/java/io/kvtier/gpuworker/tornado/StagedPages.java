package io.kvtier.gpuworker.tornado;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.kvtier.attention.GroupQuery;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Residence;
import java.util.Arrays;
import java.util.List;

/**
 * Pages of streamed heads on their way to the device. Each head's go in batches of so many pages,
 * whatever comes when, so that its sums are always made in the same order. One pass.
 */
final class StagedPages {
  private static final int BATCH_PAGES = 16;
  private static final int CHUNK_PAGES = 4;

  private final TornadoLayer layer;

  /** By range of heads. */
  private final List<StepInputs> ranges;

  private final int pageInts;

  /** {@code [kvHeads]}: pages that have come. */
  private final int[] came;

  /** {@code [kvHeads]}: pages copied that wait for their batch to fill. */
  private final int[] waiting;

  /** {@code [kvHeads][BATCH_PAGES][pageInts]}, made for heads that need it. */
  private final int[][] data;

  /** The head whose batch is ready. */
  private int readyHead;

  StagedPages(TornadoLayer layer, List<StepInputs> ranges) {
    this.layer = layer;
    this.ranges = ranges;
    LayerShape shape = layer.shape();
    this.pageInts = shape.codesBytes(Residence.STREAMED) / Integer.BYTES;
    this.came = new int[shape.kvHeads()];
    this.waiting = new int[shape.kvHeads()];
    this.data = new int[shape.kvHeads()][0];
  }

  void begin() {
    Arrays.fill(came, 0);
    Arrays.fill(waiting, 0);
  }

  /** Pages of a head that were taken. */
  int attended(int kvHead) {
    return came[kvHead];
  }

  /** Counts a head's first pages as taken. */
  void skip(int kvHead, int pages) {
    if (came[kvHead] > 0) {
      throw new IllegalStateException(came[kvHead] + " pages have come already");
    }
    came[kvHead] = pages;
  }

  /** Copies a page. */
  void give(int kvHead, int page, DeviceSlot codes) {
    if (page != came[kvHead]) {
      throw new IllegalArgumentException(
          "page %d of KV head %d was given, and %d is next".formatted(page, kvHead, came[kvHead]));
    }
    if (data[kvHead].length == 0) {
      data[kvHead] = new int[BATCH_PAGES * pageInts];
    }
    int to = waiting[kvHead] * pageInts;
    for (int i = 0; i < pageInts; i++) {
      data[kvHead][to + i] = codes.buffer().getInt(i * Integer.BYTES, LITTLE_ENDIAN);
    }
    waiting[kvHead]++;
    came[kvHead]++;
  }

  /** Whether a head has a batch to go. */
  boolean stageReady(int kvHead) {
    readyHead = kvHead;
    return waiting[kvHead] == BATCH_PAGES || (waiting[kvHead] > 0 && came[kvHead] == layer.pages());
  }

  /** Attends to the batch that is ready, and returns of which range; on the lane's thread. */
  StepInputs execute(GroupQuery[] queries) {
    Lane lane = layer.lane();
    StepInputs inputs = ranges.get(readyHead / ranges.getFirst().heads());
    int pages = waiting[readyHead];
    int[] table = new int[pages];
    Arrays.setAll(table, page -> pages + page * pageInts);
    Ints.copy(table, pages, lane.largeStage, 0);
    Ints.copy(data[readyHead], pages * pageInts, lane.largeStage, pages);
    inputs.begin(layer.pages());
    inputs.cut(CHUNK_PAGES, BATCH_PAGES / CHUNK_PAGES);
    int skipped = came[readyHead] == pages ? layer.sinkCount() : 0;
    inputs.staged(readyHead, 0, pages, skipped);
    for (int head = inputs.firstHead(); head < inputs.endHead(); head++) {
      inputs.setSlots(head, inputs.chunks(), head == readyHead ? inputs.chunks() : 0);
    }
    inputs.write(lane, lane.ints, 1);
    inputs.writeQueries(lane, queries);
    waiting[readyHead] = 0;
    var _ = lane.execute(Lane.Graph.PAGES);
    return inputs;
  }
}
