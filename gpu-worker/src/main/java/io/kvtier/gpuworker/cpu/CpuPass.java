package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

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

  /** Pairs below which one thread attends to them. */
  private static final int SHARED_PAIRS_MIN = 32;

  private final CpuLayer layer;
  private final LayerShape shape;
  private final Workshop workshop;
  private final HeadPass[] heads;
  private final NewTokens newTokens;
  private PassMemory @Nullable [] memory;
  private int[] neededPages = new int[64];
  private int[] neededHeads = new int[64];

  /** Index of each needed pair's first chosen token among its head's. */
  private int[] neededChosen = new int[64];

  private int needed;

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
    int tasks = heads.length * ranges;
    Team.Task task =
        i -> {
          Tools tools = workshop.takeTools(shape);
          work.on(heads[i / ranges], i / ranges, i % ranges, tools);
          workshop.giveBack(shape, tools);
        };
    if (heads.length * layer.pages() < SHARED_PAGES_MIN) {
      for (int i = 0; i < tasks; i++) {
        task.run(i);
      }
    } else {
      workshop.team().run(tasks, task);
    }
  }

  @Override
  public void choose(
      float[] queries, int queryAt, float[] newKeys, float[] newValues, int newTokenCount) {
    needed = 0;
    newTokens.load(newKeys, newValues, newTokenCount);
    int ranges = ranges(layer.pages());
    PassMemory[] lent = memory;
    if (lent == null) {
      lent = workshop.takeMemory(shape);
      memory = lent;
    }
    PassMemory[] memories = lent;
    if (ranges <= 1) {
      forRanges(
          1,
          (head, index, range, tools) -> {
            PassMemory own = memories[index];
            head.begin(queries, queryAt, newTokens, own);
            if (head.sketched()) {
              head.scan(0, own, tools);
              head.share(own);
              head.collect(0, own);
              head.choose(own);
            }
          });
    } else {
      chooseInRanges(queries, queryAt, ranges, memories);
    }
    listNeeded();
  }

  private void chooseInRanges(float[] queries, int queryAt, int ranges, PassMemory[] memories) {
    forRanges(
        1, (head, index, range, tools) -> head.begin(queries, queryAt, newTokens, memories[index]));
    if (Arrays.stream(heads).noneMatch(HeadPass::sketched)) {
      return;
    }
    forRanges(
        ranges,
        (head, index, range, tools) -> {
          if (head.sketched()) {
            head.scan(range, memories[index], tools);
          }
        });
    for (int head = 0; head < heads.length; head++) {
      if (heads[head].sketched()) {
        heads[head].share(memories[head]);
      }
    }
    forRanges(
        ranges,
        (head, index, range, tools) -> {
          if (head.sketched()) {
            head.collect(range, memories[index]);
          }
        });
    forRanges(
        1,
        (head, index, range, tools) -> {
          if (head.sketched()) {
            head.choose(memories[index]);
          }
        });
  }

  private void listNeeded() {
    for (int head = 0; head < heads.length; head++) {
      int lastPage = -1;
      if (heads[head].streamed()) {
        for (int page = 0; page < layer.pages(); page++) {
          addNeeded(page, head, heads[head].firstChosen(page));
        }
        continue;
      }
      for (int i = 0; i < heads[head].chosenCount(); i++) {
        int page = heads[head].chosenPosition(i) / TOKENS;
        if (page != lastPage) {
          addNeeded(page, head, i);
          lastPage = page;
        }
      }
    }
  }

  private void addNeeded(int page, int head, int firstChosen) {
    if (needed == neededPages.length) {
      neededPages = Arrays.copyOf(neededPages, 2 * needed);
      neededHeads = Arrays.copyOf(neededHeads, 2 * needed);
      neededChosen = Arrays.copyOf(neededChosen, 2 * needed);
    }
    neededPages[needed] = page;
    neededHeads[needed] = head;
    neededChosen[needed] = firstChosen;
    needed++;
  }

  @Override
  public int neededCount() {
    return needed;
  }

  @Override
  public int neededPage(int index) {
    return neededPages[index];
  }

  @Override
  public int neededHead(int index) {
    return neededHeads[index];
  }

  @Override
  public int neededSections(int index) {
    return heads[neededHeads[index]].policy().residence().codes();
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
  public int candidateTotal() {
    int total = 0;
    for (HeadPass head : heads) {
      total += head.candidateCount();
    }
    return total;
  }

  @Override
  public void attendNeeded(int[] pairs, DeviceSlot[] codes, int count) {
    PassMemory[] memories = requireMemory();
    Team.Task task =
        head -> {
          Tools tools = workshop.takeTools(shape);
          for (int i = 0; i < count; i++) {
            int pair = pairs[i];
            if (neededHeads[pair] == head) {
              long address = codes[i].buffer().addressOffset();
              int from = neededChosen[pair];
              heads[head].attendChosen(from, chosenEnd(pair), address, memories[head], tools);
            }
          }
          workshop.giveBack(shape, tools);
        };
    if (count < SHARED_PAIRS_MIN) {
      for (int head = 0; head < heads.length; head++) {
        task.run(head);
      }
    } else {
      workshop.team().run(heads.length, task);
    }
  }

  private int chosenEnd(int pair) {
    int head = neededHeads[pair];
    boolean last = pair + 1 == needed || neededHeads[pair + 1] != head;
    return last ? heads[head].chosenCount() : neededChosen[pair + 1];
  }

  private PassMemory[] requireMemory() {
    PassMemory[] lent = memory;
    if (lent == null) {
      throw new IllegalStateException("the pass has not chosen, or was finished already");
    }
    return lent;
  }

  @Override
  public void finish(float[] output, int outputAt, float[] lse, int lseAt) {
    PassMemory[] memories = requireMemory();
    int ranges = ranges(layer.pages());
    for (HeadPass head : heads) {
      head.reserveSums(ranges);
    }
    if (ranges > 0) {
      forRanges(
          ranges,
          (head, index, range, tools) -> {
            if (head.dense()) {
              head.attendDense(range, tools);
            } else if (head.sketched()) {
              head.estimateRest(range, memories[index]);
            }
          });
    }
    Tools tools = workshop.takeTools(shape);
    for (HeadPass head : heads) {
      head.merge(output, outputAt, lse, lseAt, tools);
    }
    workshop.giveBack(shape, tools);
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
