package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.HeadOffsets;
import io.kvtier.codec.CodedRows;
import io.kvtier.codec.PageEncoder;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/** A layer in the processor's memory. */
final class CpuLayer implements DeviceLayer {
  private final int layer;
  private final LayerShape shape;
  private final DeviceMemory memory;
  private final int sketchStride;
  private final ExactRows exact;
  private final List<ResidentPage> pages = new ArrayList<>();
  private final List<List<DeviceSlot>> codes = new ArrayList<>();
  private final Workshop workshop;
  private final HeadOffsets[] offsets;

  /** Where the pages' sketches lie: the kernels must not look up objects page by page. */
  private long[] sketchAddresses = new long[0];

  /** {@code [kvHeads][pages]}, as far as codes are held. */
  private final long[][] codesAddresses;

  private int tokens;
  private long codedBytes;
  private @Nullable PageOut pageOut;
  private @Nullable CodedRows codedRows;

  CpuLayer(int layer, LayerShape shape, DeviceMemory memory, Workshop workshop) {
    this(layer, shape, memory, workshop, new ExactRows(shape, memory));
  }

  private CpuLayer(
      int layer, LayerShape shape, DeviceMemory memory, Workshop workshop, ExactRows exact) {
    this.layer = layer;
    this.shape = shape;
    this.memory = memory;
    this.sketchStride = shape.layout().lengthOf(LayerShape.SKETCH);
    this.workshop = workshop;
    this.exact = exact;
    this.offsets = new HeadOffsets[shape.kvHeads()];
    this.codesAddresses = new long[shape.kvHeads()][0];
    for (int head = 0; head < shape.kvHeads(); head++) {
      int sketchAt = head * sketchStride;
      offsets[head] =
          HeadOffsets.inSlots(shape.layout(), LayerShape.SKETCH, sketchAt, LayerShape.CODES);
      codes.add(new ArrayList<>());
    }
  }

  /** Scratch to encode a page with; made when the first page leaves the window. */
  private static final class PageOut {
    final PageEncoder encoder;
    final UnsafeBuffer page;
    final float[] keys;
    final float[] values;

    PageOut(LayerShape shape) {
      encoder = new PageEncoder(shape.layout());
      page = new UnsafeBuffer(new byte[shape.layout().pageLength()]);
      keys = new float[TOKENS * shape.rowLength()];
      values = new float[TOKENS * shape.rowLength()];
    }
  }

  LayerShape shape() {
    return shape;
  }

  ExactRows exact() {
    return exact;
  }

  private UnsafeBuffer sketch(int page) {
    return pages.get(page).sketch().buffer();
  }

  /** Where a head's sections lie from {@link #sketchAddress} and {@link #codesAddress}. */
  HeadOffsets offsets(int kvHead) {
    return offsets[kvHead];
  }

  /** Addresses of the pages' sketches; the first {@link #pages} are valid. */
  long[] sketchAddresses() {
    return sketchAddresses;
  }

  long sketchAddress(int page) {
    return sketchAddresses[page];
  }

  long codesAddress(int kvHead, int page) {
    return codesAddresses[kvHead][page];
  }

  private void addPage(ResidentPage page) {
    sketchAddresses = put(sketchAddresses, pages.size(), page.sketch().buffer().addressOffset());
    pages.add(page);
  }

  private static long[] put(long[] addresses, int index, long address) {
    long[] room =
        index < addresses.length
            ? addresses
            : Arrays.copyOf(addresses, Math.max(16, index + index / 2));
    room[index] = address;
    return room;
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
  public void append(
      float[] keys, float[] values, int count, List<HeadPolicy> policies, PageSink sink) {
    ArrayDeque<DeviceSlot> reserved = reserve(shape.pages(tokens + count) - pages.size(), policies);
    int from = 0;
    while (from < count) {
      int n = Math.min(count - from, exact.room());
      exact.append(keys, values, from, n);
      from += n;
      tokens += n;
      if (exact.room() == 0) {
        pageOut(policies, reserved, sink);
      }
    }
  }

  /** Takes all the memory that an append will need, or none. */
  private ArrayDeque<DeviceSlot> reserve(int newPages, List<HeadPolicy> policies) {
    ArrayDeque<DeviceSlot> reserved = new ArrayDeque<>();
    try {
      for (int page = 0; page < newPages; page++) {
        reserved.add(memory.allocate(shape.sketchBytes()));
        for (HeadPolicy policy : policies) {
          if (policy.dense()) {
            reserved.add(memory.allocate(shape.codesBytes()));
          }
        }
      }
      return reserved;
    } catch (RuntimeException e) {
      reserved.forEach(DeviceSlot::release);
      throw e;
    }
  }

  private void pageOut(List<HeadPolicy> policies, ArrayDeque<DeviceSlot> reserved, PageSink sink) {
    PageOut out = pageOut;
    if (out == null) {
      out = new PageOut(shape);
      pageOut = out;
    }
    int pageIndex = pages.size();
    exact.readOldest(TOKENS, out.keys, out.values);
    PageIdentity identity =
        new PageIdentity(shape.fingerprint(), layer, pageIndex * TOKENS, TOKENS);
    out.encoder.encode(identity, out.keys, out.values, out.page, 0);
    PageKey key = sink.key(pageIndex);
    DeviceSlot sketch = reserved.remove();
    for (int head = 0; head < shape.kvHeads(); head++) {
      copySections(out.page, head, LayerShape.SKETCH, sketch, head * sketchStride);
    }
    addPage(new ResidentPage(key, sketch));
    codedBytes += sketch.length();
    for (int head = 0; head < policies.size(); head++) {
      if (policies.get(head).dense()) {
        DeviceSlot headCodes = reserved.remove();
        copySections(out.page, head, LayerShape.CODES, headCodes, 0);
        addCodes(head, headCodes);
      }
    }
    exact.dropOldest(TOKENS);
    sink.accept(key, out.page, shape.layout().pageLength());
  }

  private void copySections(
      DirectBuffer page, int head, int sectionSet, DeviceSlot slot, int slotAt) {
    PageLayout layout = shape.layout();
    int at = slotAt;
    for (int id = 0; id < Section.count(); id++) {
      if ((sectionSet & 1 << id) != 0) {
        Section section = Section.ofId(id);
        slot.buffer().putBytes(at, page, layout.offset(head, section), layout.length(section));
        at += layout.length(section);
      }
    }
  }

  @Override
  public List<PageKey> pageKeys() {
    return pages.stream().map(ResidentPage::key).toList();
  }

  @Override
  public int codesHeld(int kvHead) {
    return codes.get(kvHead).size();
  }

  @Override
  public void addCodes(int kvHead, DeviceSlot slot) {
    codesAddresses[kvHead] =
        put(codesAddresses[kvHead], codes.get(kvHead).size(), slot.buffer().addressOffset());
    codes.get(kvHead).add(slot);
    codedBytes += slot.length();
  }

  @Override
  public void releaseCodes(int kvHead) {
    for (DeviceSlot slot : codes.get(kvHead)) {
      codedBytes -= slot.length();
      slot.release();
    }
    codes.get(kvHead).clear();
  }

  @Override
  public LayerPass newPass(List<HeadPolicy> policies) {
    return new CpuPass(this, policies, workshop);
  }

  @Override
  public void profile(float[] query, int at, int position, MassHistogram[] masses) {
    new SketchProfile(this, workshop).profile(query, at, position, masses);
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
    UnsafeBuffer sketch = sketch(position / TOKENS);
    int base = kvHead * sketchStride;
    CodedRows rows = codedRows;
    if (rows == null) {
      rows = new CodedRows(shape.layout(), LayerShape.SKETCH, LayerShape.CODES);
      codedRows = rows;
    }
    rows.key(sketch, base, code, 0, token, keys, at);
    rows.value(sketch, base, code, 0, token, values, at);
  }

  @Override
  public DeviceLayer fork() {
    CpuLayer fork = new CpuLayer(layer, shape, memory, workshop, exact.copy(memory));
    pages.forEach(page -> fork.addPage(page.share()));
    for (int head = 0; head < shape.kvHeads(); head++) {
      for (DeviceSlot slot : codes.get(head)) {
        fork.addCodes(head, slot.retain());
      }
    }
    fork.tokens = tokens;
    fork.codedBytes = codedBytes;
    return fork;
  }

  @Override
  public long residentBytes() {
    return exact.bytes() + codedBytes;
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
    for (int head = 0; head < shape.kvHeads(); head++) {
      releaseCodes(head);
    }
    exact.release();
    return unshared;
  }
}
