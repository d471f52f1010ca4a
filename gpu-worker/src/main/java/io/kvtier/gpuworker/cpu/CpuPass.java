package io.kvtier.gpuworker.cpu;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.cpu.Workshop.Tools;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A pass on the processor: shares the work of each half out over KV heads and ranges of pages. A
 * sparse head's sketch weights are kept between the two halves, since the estimate of the rest
 * needs them once the chosen tokens are known.
 */
final class CpuPass implements LayerPass {
  /** Pages, over all heads, below which a hand-over to other threads costs more than it saves. */
  private static final int SHARED_PAGES_MIN = 96;

  /** Pages, over all heads, of a part of the choice at least: a part costs some hand-overs. */
  private static final int PART_PAGES_MIN = 512;

  private static final int PARTS_MAX = 4;

  /** Rows below which one thread attends to them. */
  private static final int SHARED_ROWS_MIN = 64;

  private final CpuLayer layer;
  private final LayerShape shape;
  private final Workshop workshop;
  private final HeadPass[] heads;
  private final NewTokens newTokens;
  private PassMemory @Nullable [] memory;

  /** Parts of this query's choice. */
  private int parts = 1;

  /** Whether this query's {@link #attendResident} has been done. */
  private boolean residentDone;

  CpuPass(CpuLayer layer, List<HeadPolicy> policies, Workshop workshop) {
    this.layer = layer;
    this.shape = layer.shape();
    this.workshop = workshop;
    this.heads = new HeadPass[shape.kvHeads()];
    Arrays.setAll(heads, head -> new HeadPass(layer, head, policies.get(head), workshop.kernels()));
    this.newTokens = new NewTokens(shape);
  }

  /** Ranges of so many pages. */
  static int ranges(int pages) {
    return (pages + HeadPass.RANGE - 1) / HeadPass.RANGE;
  }

  /** What a head does, in a range or as a whole, with a task's tools. */
  private interface Work {
    void on(HeadPass head, int headIndex, int range, Tools tools);
  }

  /** Does something for every head and range. */
  private void forRanges(int ranges, Work work) {
    forRanges(0, heads.length, ranges, work, Team::nothing);
  }

  /** Does something for some heads and every range. */
  private void forRanges(int from, int to, int ranges, Work work) {
    forRanges(from, to, ranges, work, Team::nothing);
  }

  /** The same; the caller does something else first. */
  private void forRanges(int from, int to, int ranges, Work work, Runnable first) {
    int tasks = (to - from) * ranges;
    Team.Task task =
        i -> {
          Tools tools = workshop.takeTools(shape);
          int head = from + i / ranges;
          work.on(heads[head], head, i % ranges, tools);
          workshop.giveBack(shape, tools);
        };
    if ((to - from) * layer.pages() < SHARED_PAGES_MIN) {
      first.run();
      for (int i = 0; i < tasks; i++) {
        task.run(i);
      }
    } else {
      workshop.team().run(tasks, task, first);
    }
  }

  /** Does something for every head. */
  private void forHeads(boolean shared, Work work) {
    Team.Task task =
        i -> {
          Tools tools = workshop.takeTools(shape);
          work.on(heads[i], i, 0, tools);
          workshop.giveBack(shape, tools);
        };
    if (shared) {
      workshop.team().run(heads.length, task);
    } else {
      for (int i = 0; i < heads.length; i++) {
        task.run(i);
      }
    }
  }

  @Override
  public void choose(
      float[] queries, int queryAt, float[] newKeys, float[] newValues, int newTokenCount) {
    begin(queries, queryAt, newKeys, newValues, newTokenCount);
    for (int part = 0; part < parts; part++) {
      choosePart(part);
    }
  }

  @Override
  public void begin(
      float[] queries, int queryAt, float[] newKeys, float[] newValues, int newTokenCount) {
    residentDone = false;
    newTokens.load(newKeys, newValues, newTokenCount);
    PassMemory[] lent = memory;
    if (lent == null) {
      lent = workshop.takeMemory(shape);
      memory = lent;
    }
    PassMemory[] memories = lent;
    forRanges(
        1, (head, index, range, tools) -> head.begin(queries, queryAt, newTokens, memories[index]));
    long scanned = Arrays.stream(heads).filter(HeadPass::sketched).count() * layer.pages();
    parts = Math.clamp(scanned / PART_PAGES_MIN, 1, Math.min(PARTS_MAX, heads.length));
  }

  @Override
  public int parts() {
    return parts;
  }

  @Override
  public int partOf(int kvHead) {
    return kvHead * parts / heads.length;
  }

  /** The first head of a part. */
  private int partFrom(int part) {
    return (part * heads.length + parts - 1) / parts;
  }

  @Override
  public void choosePart(int part) {
    choosePart(part, Team::nothing);
  }

  @Override
  public void choosePart(int part, Runnable beside) {
    PassMemory[] memories = requireMemory();
    int from = partFrom(part);
    int to = partFrom(part + 1);
    int ranges = ranges(layer.pages());
    if (ranges <= 1) {
      beside.run();
      forRanges(
          from,
          to,
          1,
          (head, index, range, tools) -> {
            if (head.sketched()) {
              head.scan.scan(0, memories[index], tools);
              head.scan.share(memories[index]);
              head.scan.collect(0, memories[index]);
              head.choose(memories[index]);
            }
          });
    } else if (Arrays.stream(heads, from, to).anyMatch(HeadPass::sketched)) {
      chooseInRanges(from, to, ranges, memories, beside);
    } else {
      beside.run();
    }
  }

  private void chooseInRanges(
      int from, int to, int ranges, PassMemory[] memories, Runnable beside) {
    forRanges(
        from,
        to,
        ranges,
        (head, index, range, tools) -> {
          if (head.sketched()) {
            head.scan.scan(range, memories[index], tools);
          }
        },
        beside);
    for (int head = from; head < to; head++) {
      if (heads[head].sketched()) {
        heads[head].scan.share(memories[head]);
      }
    }
    forRanges(
        from,
        to,
        ranges,
        (head, index, range, tools) -> {
          if (head.sketched()) {
            head.scan.collect(range, memories[index]);
          }
        });
    forRanges(
        from,
        to,
        1,
        (head, index, range, tools) -> {
          if (head.sketched()) {
            head.choose(memories[index]);
          }
        });
  }

  @Override
  public int rowSections(int kvHead) {
    return heads[kvHead].policy().residence().rows();
  }

  @Override
  public boolean streams(int kvHead) {
    return heads[kvHead].streamed();
  }

  @Override
  public void skipPages(int kvHead, int pages) {
    heads[kvHead].coded.skipPages(pages);
  }

  @Override
  public int chosenCount(int kvHead) {
    return heads[kvHead].chosenCount();
  }

  @Override
  public int chosenPosition(int kvHead, int index) {
    return heads[kvHead].chosenPosition(index);
  }

  @Override
  public float chosenMass(int kvHead, int index) {
    return heads[kvHead].chosenMass(index);
  }

  @Override
  public int chosenTotal() {
    int total = 0;
    for (HeadPass head : heads) {
      total += head.chosenCount();
    }
    return total;
  }

  @Override
  public void giveRow(int kvHead, int index, DeviceSlot rows, int offset) {
    heads[kvHead].coded.chosen.giveRow(index, rows.address() + offset);
  }

  @Override
  public boolean refines(int kvHead, int index) {
    return heads[kvHead].coded.chosen.refines(index);
  }

  @Override
  public void giveRest(int kvHead, int index, DeviceSlot rests, int offset) {
    heads[kvHead].coded.chosen.giveRest(index, rests.address() + offset);
  }

  @Override
  public void forgetRows() {
    for (HeadPass head : heads) {
      head.coded.chosen.forgetRows();
    }
  }

  @Override
  public int candidateTotal() {
    int total = 0;
    for (HeadPass head : heads) {
      total += head.candidateCount();
    }
    return total;
  }

  @Override
  public void attendRows() {
    PassMemory[] memories = requireMemory();
    int left = 0;
    for (HeadPass head : heads) {
      left += head.sketched() ? head.chosenCount() - head.attendedCount() : 0;
    }
    forHeads(
        left >= SHARED_ROWS_MIN,
        (head, index, range, tools) -> {
          if (head.sketched()) {
            head.attendRows(memories[index], tools);
          }
        });
  }

  @Override
  public int attendedCount(int kvHead) {
    return heads[kvHead].attendedCount();
  }

  @Override
  public void attendPages(int[] pages, int[] kvHeads, DeviceSlot[] codes, int count) {
    forHeads(
        count >= SHARED_PAGES_MIN,
        (head, index, range, tools) -> {
          for (int i = 0; i < count; i++) {
            if (kvHeads[i] == index) {
              head.coded.attendNextPage(pages[i], codes[i].address(), tools);
            }
          }
        });
  }

  private PassMemory[] requireMemory() {
    PassMemory[] lent = memory;
    if (lent == null) {
      throw new IllegalStateException("the pass has not chosen, or was finished already");
    }
    return lent;
  }

  @Override
  public void attendResident() {
    attendResident(Team::nothing);
  }

  @Override
  public void attendResident(Runnable beside) {
    int ranges = ranges(layer.pages());
    if (residentDone || ranges == 0) {
      beside.run();
      return;
    }
    residentDone = true;
    PassMemory[] memories = requireMemory();
    for (int head = 0; head < heads.length; head++) {
      heads[head].coded.reserveSums(ranges);
    }
    forRanges(
        0,
        heads.length,
        ranges,
        (head, index, range, tools) -> {
          if (head.dense()) {
            head.coded.attendDense(range, tools);
          } else if (head.sketched()) {
            head.scan.leaveChosenOut(range, memories[index], tools);
            head.coded.estimateRest(range, memories[index], tools);
          }
        },
        beside);
  }

  @Override
  public void finish(float[] output, int outputAt, float[] lse, int lseAt) {
    attendResident();
    for (int head = 0; head < heads.length; head++) {
      if (heads[head].attendedCount() != heads[head].chosenCount()) {
        throw new IllegalStateException(
            "KV head %d has attended to %d of %d chosen tokens"
                .formatted(head, heads[head].attendedCount(), heads[head].chosenCount()));
      }
    }
    forRanges(1, (head, index, range, tools) -> head.merge(output, outputAt, lse, lseAt, tools));
    release();
  }

  @Override
  public void release() {
    PassMemory[] lent = memory;
    if (lent != null) {
      memory = null;
      workshop.giveBack(shape, lent);
    }
  }
}
