package io.kvtier.gpuworker.cpu;

import io.kvtier.attention.Kernels;
import io.kvtier.attention.Scratch;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.Deque;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.ConcurrentMap;
import java.util.function.Supplier;
import org.agrona.BufferUtil;

/**
 * What all sessions of the processor share: the kernels, the threads, and scratch memory, which is
 * lent out and used again, so that there is as much of it as passes run at once and not as layers
 * exist. Safe for any number of threads.
 */
final class Workshop implements AutoCloseable {
  private final Kernels kernels;
  private final Team team;
  private final ConcurrentMap<Size, Deque<Tools>> tools = new ConcurrentHashMap<>();
  private final ConcurrentMap<Size, Deque<PassMemory[]>> memories = new ConcurrentHashMap<>();
  private final ConcurrentMap<Size, Deque<PageScratch>> pages = new ConcurrentHashMap<>();

  /** What scratch depends on. */
  private record Size(PageLayout layout, int group) {
    static Size of(LayerShape shape) {
      return new Size(shape.layout(), shape.group());
    }
  }

  /** What one task writes to. */
  static final class Tools {
    /** Kernels read up to a vector beyond a row. */
    private static final int SLACK = 64;

    final Scratch scratch;

    /** {@code [group][64]}. */
    final float[] scores;

    /** {@code [group][64]}. */
    final float[] weights;

    /** {@code [group]}. */
    final float[] totals;

    /** {@code [pages][group]}, of a range's pages. */
    final float[] references;

    /** {@code [pages][group]}, of {@link CodedAttention#TOUCHED} pages. */
    final float[] pageWeights;

    /** Where those pages lie. */
    final long[] pageAddresses = new long[CodedAttention.TOUCHED];

    /** Addresses of what as many tokens as a page has need. */
    final long[] addresses = new long[PageLayout.TOKENS];

    /** {@link #addresses}, for memory to be asked. */
    final MemorySegment asked = MemorySegment.ofArray(addresses);

    /** {@code [headDim]}. */
    final float[] output;

    /** Room for all of one head of a page; never cleared. */
    private final ByteBuffer codes;

    /** Where {@link #codes} begins, a multiple of 64. */
    final long codesAddress;

    Tools(int group, int headDim, int codesBytes) {
      this.scratch = new Scratch(group, headDim);
      this.scores = new float[group * PageLayout.TOKENS];
      this.weights = new float[group * PageLayout.TOKENS];
      this.totals = new float[group];
      this.references = new float[HeadPass.RANGE * group];
      this.pageWeights = new float[CodedAttention.TOUCHED * group];
      this.output = new float[headDim];
      this.codes = BufferUtil.allocateDirectAligned(codesBytes + SLACK, PageLayout.ALIGNMENT);
      this.codesAddress = BufferUtil.address(codes);
    }
  }

  Workshop(Kernels kernels, int threads) {
    this.kernels = kernels;
    this.team = new Team(threads);
  }

  Kernels kernels() {
    return kernels;
  }

  Team team() {
    return team;
  }

  Tools takeTools(LayerShape shape) {
    return take(
        tools,
        shape,
        () -> new Tools(shape.group(), shape.headDim(), shape.codesBytes(Residence.STREAMED)));
  }

  void giveBack(LayerShape shape, Tools lent) {
    give(tools, shape, lent);
  }

  /** Memory for a pass, {@code [kvHeads]}. */
  PassMemory[] takeMemory(LayerShape shape) {
    return take(
        memories,
        shape,
        () -> {
          PassMemory[] heads = new PassMemory[shape.kvHeads()];
          java.util.Arrays.setAll(heads, head -> new PassMemory());
          return heads;
        });
  }

  void giveBack(LayerShape shape, PassMemory[] lent) {
    give(memories, shape, lent);
  }

  PageScratch takePageScratch(LayerShape shape) {
    return take(pages, shape, () -> new PageScratch(shape));
  }

  void giveBack(LayerShape shape, PageScratch lent) {
    give(pages, shape, lent);
  }

  private static <T> T take(
      ConcurrentMap<Size, Deque<T>> store, LayerShape shape, Supplier<T> maker) {
    Deque<T> free = store.get(Size.of(shape));
    T found = free == null ? null : free.pollFirst();
    return found == null ? maker.get() : found;
  }

  private static <T> void give(ConcurrentMap<Size, Deque<T>> store, LayerShape shape, T lent) {
    store.computeIfAbsent(Size.of(shape), size -> new ConcurrentLinkedDeque<>()).addFirst(lent);
  }

  @Override
  public void close() {
    team.close();
    tools.clear();
    memories.clear();
    pages.clear();
  }
}
