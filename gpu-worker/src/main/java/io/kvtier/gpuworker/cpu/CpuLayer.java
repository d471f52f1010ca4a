package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.codec.CodedRows;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/** A layer in the processor's memory. */
final class CpuLayer implements DeviceLayer {
  private final int layer;
  private final LayerShape shape;
  private final DeviceMemory memory;
  private final ExactRows exact;
  private final List<ResidentPage> pages = new ArrayList<>();
  private final HeadPages[] heads;
  private final Workshop workshop;
  private int tokens;

  /** Slots for a full page that has not been encoded yet; null: there is none. */
  private @Nullable ArrayDeque<DeviceSlot> left;

  private long leftBytes;

  /** Decoders of single rows, by the residence of the head; made when they are needed. */
  private final Map<Residence, CodedRows> codedRows = new EnumMap<>(Residence.class);

  CpuLayer(int layer, LayerShape shape, DeviceMemory memory, Workshop workshop) {
    this(layer, shape, memory, workshop, new ExactRows(shape, memory));
  }

  private CpuLayer(
      int layer, LayerShape shape, DeviceMemory memory, Workshop workshop, ExactRows exact) {
    this.layer = layer;
    this.shape = shape;
    this.memory = memory;
    this.workshop = workshop;
    this.exact = exact;
    this.heads = new HeadPages[shape.kvHeads()];
    Arrays.setAll(heads, head -> new HeadPages(shape.layout(), head));
  }

  LayerShape shape() {
    return shape;
  }

  ExactRows exact() {
    return exact;
  }

  HeadPages head(int kvHead) {
    return heads[kvHead];
  }

  @Override
  public int tokens() {
    return tokens;
  }

  @Override
  public int pages() {
    return pages.size();
  }

  @Override
  public void append(float[] keys, float[] values, int count, PageSink sink) {
    if (appendAhead(keys, values, count, sink)) {
      pageOut(sink);
    }
  }

  @Override
  public boolean appendAhead(float[] keys, float[] values, int count, PageSink sink) {
    requireNoneLeft();
    ArrayDeque<DeviceSlot> reserved = reserve(shape.pages(tokens + count) - pages.size());
    int from = 0;
    while (from < count) {
      int n = Math.min(count - from, exact.room());
      exact.append(keys, values, from, n);
      from += n;
      tokens += n;
      if (exact.room() == 0 && from == count) {
        leave(reserved);
      } else if (exact.room() == 0) {
        pageOut(reserved, sink);
      }
    }
    return left != null;
  }

  @Override
  public void pageOut(PageSink sink) {
    ArrayDeque<DeviceSlot> reserved = left;
    if (reserved == null) {
      throw new IllegalStateException("no page is left");
    }
    pageOut(reserved, sink);
    left = null;
    leftBytes = 0;
  }

  private void leave(ArrayDeque<DeviceSlot> reserved) {
    left = reserved;
    for (DeviceSlot slot : reserved) {
      leftBytes += slot.length();
    }
  }

  private void requireNoneLeft() {
    if (left != null) {
      throw new IllegalStateException("page %d is not encoded yet".formatted(pages.size()));
    }
  }

  /** Takes all the memory that an append will need, or none. */
  private ArrayDeque<DeviceSlot> reserve(int newPages) {
    ArrayDeque<DeviceSlot> reserved = new ArrayDeque<>();
    try {
      for (int page = 0; page < newPages; page++) {
        for (HeadPages head : heads) {
          head.reserve(memory, reserved);
        }
      }
      return reserved;
    } catch (RuntimeException e) {
      reserved.forEach(DeviceSlot::release);
      throw e;
    }
  }

  private void pageOut(ArrayDeque<DeviceSlot> reserved, PageSink sink) {
    PageScratch out = workshop.takePageScratch(shape);
    try {
      pageOut(out, reserved, sink);
    } finally {
      workshop.giveBack(shape, out);
    }
  }

  private void pageOut(PageScratch out, ArrayDeque<DeviceSlot> reserved, PageSink sink) {
    int pageIndex = pages.size();
    exact.readOldest(TOKENS, out.keys, out.values);
    PageIdentity identity =
        new PageIdentity(shape.fingerprint(), layer, pageIndex * TOKENS, TOKENS);
    out.encoder.encode(identity, out.keys, out.values, out.page, 0);
    PageKey key = sink.key(pageIndex, out.page);
    for (HeadPages head : heads) {
      head.add(out.page, reserved);
    }
    pages.add(new ResidentPage(key));
    exact.dropOldest(TOKENS);
    sink.accept(key, out.page, shape.layout().pageLength());
  }

  @Override
  public void restore(List<PageKey> pageKeys, float[] sinkKeys, float[] sinkValues) {
    if (tokens != 0) {
      throw new IllegalStateException("the layer has %d tokens already".formatted(tokens));
    }
    for (HeadPages head : heads) {
      head.hold(Residence.STREAMED, List.of(), List.of());
    }
    exact.restoreSinks(sinkKeys, sinkValues);
    pageKeys.forEach(key -> pages.add(new ResidentPage(key)));
    tokens = pageKeys.size() * TOKENS;
  }

  @Override
  public List<PageKey> pageKeys() {
    return pages.stream().map(ResidentPage::key).toList();
  }

  @Override
  public Residence residence(int kvHead) {
    return heads[kvHead].residence();
  }

  @Override
  public List<DeviceSlot> sketches(int kvHead) {
    return heads[kvHead].sketches();
  }

  @Override
  public List<DeviceSlot> codes(int kvHead) {
    return heads[kvHead].codes();
  }

  @Override
  public void hold(
      int kvHead, Residence residence, List<DeviceSlot> sketches, List<DeviceSlot> codes) {
    requireOneAPage(sketches, residence.sketch() != 0);
    requireOneAPage(codes, residence == Residence.DENSE);
    heads[kvHead].hold(residence, sketches, codes);
  }

  private void requireOneAPage(List<DeviceSlot> slots, boolean wanted) {
    if (slots.size() != (wanted ? pages.size() : 0)) {
      throw new IllegalArgumentException(
          "%d slots for %d pages, wanted: %s".formatted(slots.size(), pages.size(), wanted));
    }
  }

  @Override
  public LayerPass newPass(List<HeadPolicy> policies) {
    requireNoneLeft();
    return new CpuPass(this, policies, workshop);
  }

  @Override
  public void profile(int kvHead, float[] query, int at, int position, MassHistogram[] masses) {
    new SketchProfile(this, workshop).profile(kvHead, query, at, position, masses);
  }

  @Override
  public double scoreVariance(int kvHead, float[] query, int at) {
    int headDim = shape.headDim();
    int group = shape.group();
    double squares = 0;
    for (int i = at + kvHead * group * headDim; i < at + (kvHead + 1) * group * headDim; i++) {
      squares += (double) query[i] * query[i];
    }
    double scales = 0;
    for (int page = 0; page < pages.size(); page++) {
      scales += heads[kvHead].squareScale(page);
    }
    double meanSquare = squares / headDim / group * scales / Math.max(1, pages.size());
    return SketchError.variance(1) * meanSquare;
  }

  @Override
  public boolean isExact(int position) {
    return position >= pages.size() * TOKENS || position < exact.sinkCount();
  }

  @Override
  public void readRow(
      int kvHead,
      int position,
      @Nullable DeviceSlot codeSlot,
      float[] keys,
      float[] values,
      int at) {
    int paged = pages.size() * TOKENS;
    if (position >= paged) {
      exact.readWindow(position - paged, kvHead, keys, values, at);
    } else if (position < exact.sinkCount()) {
      exact.readSink(position, kvHead, keys, values, at);
    } else {
      if (codeSlot == null) {
        throw new IllegalArgumentException(
            "position " + position + " is in a page: give its codes");
      }
      readCodedRow(kvHead, position, codeSlot.buffer(), keys, values, at);
    }
  }

  private void readCodedRow(
      int kvHead, int position, UnsafeBuffer code, float[] keys, float[] values, int at) {
    int token = position % TOKENS;
    Residence residence = heads[kvHead].residence();
    CodedRows decoder =
        codedRows.computeIfAbsent(
            residence, r -> new CodedRows(shape.layout(), r.sketch(), r.codes(shape.layout())));
    UnsafeBuffer sketch =
        residence.sketch() == 0 ? code : heads[kvHead].sketches().get(position / TOKENS).buffer();
    decoder.key(sketch, 0, code, 0, token, keys, at);
    decoder.value(sketch, 0, code, 0, token, values, at);
  }

  @Override
  public DeviceLayer fork() {
    requireNoneLeft();
    CpuLayer fork = new CpuLayer(layer, shape, memory, workshop, exact.copy(memory));
    fork.pages.addAll(pages);
    pages.forEach(page -> {
      var _ = page.share();
    });
    for (int head = 0; head < heads.length; head++) {
      fork.heads[head].share(heads[head]);
    }
    fork.tokens = tokens;
    return fork;
  }

  @Override
  public long residentBytes() {
    long bytes = exact.bytes();
    for (HeadPages head : heads) {
      bytes += head.bytes();
    }
    return bytes + leftBytes;
  }

  @Override
  public List<PageKey> release() {
    List<PageKey> unshared = new ArrayList<>();
    for (ResidentPage page : pages) {
      if (page.release()) {
        unshared.add(page.key());
      }
    }
    pages.clear();
    if (left != null) {
      left.forEach(DeviceSlot::release);
      left = null;
      leftBytes = 0;
    }
    for (HeadPages head : heads) {
      head.release();
    }
    exact.release();
    return unshared;
  }
}
