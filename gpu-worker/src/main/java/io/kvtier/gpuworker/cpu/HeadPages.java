package io.kvtier.gpuworker.cpu;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.kvtier.attention.HeadOffsets;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.Section;
import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * What of one KV head's pages is on the device: a sketch slot a page, and where the head is dense a
 * slot of codes. Guarded by its layer.
 */
final class HeadPages {
  private final PageLayout layout;
  private final int kvHead;
  private final List<DeviceSlot> sketches = new ArrayList<>();
  private final List<DeviceSlot> codes = new ArrayList<>();
  private Residence residence = Residence.TWO_PLANES;

  /** Where the slots lie: the kernels must not look up objects page by page. */
  private long[] sketchAddresses = new long[0];

  /** {@link #sketchAddresses}, for memory to be asked. */
  private MemorySegment sketchesToAsk = MemorySegment.ofArray(sketchAddresses);

  private long[] codesAddresses = new long[0];

  /** {@code [pages]}: the mean square of the page's key scales. */
  private float[] squareScales = new float[0];

  private long bytes;

  HeadPages(PageLayout layout, int kvHead) {
    this.layout = layout;
    this.kvHead = kvHead;
  }

  Residence residence() {
    return residence;
  }

  List<DeviceSlot> sketches() {
    return sketches;
  }

  List<DeviceSlot> codes() {
    return codes;
  }

  /** Addresses of the sketches; the first {@code pages} are valid. */
  long[] sketchAddresses() {
    return sketchAddresses;
  }

  /** The same, for {@link io.kvtier.attention.Kernels#prefetchEach}. */
  MemorySegment sketchesToAsk() {
    return sketchesToAsk;
  }

  long sketchAddress(int page) {
    return sketchAddresses[page];
  }

  long codesAddress(int page) {
    return codesAddresses[page];
  }

  float squareScale(int page) {
    return squareScales[page];
  }

  long bytes() {
    return bytes;
  }

  /** Where sections lie from the addresses of sketch and codes, of a residence. */
  static HeadOffsets offsets(PageLayout layout, Residence residence) {
    return HeadOffsets.inSlots(layout, residence.sketch(), 0, residence.codes(layout));
  }

  /** Where sections lie in fetched codes that stand alone, sketch and codes alike. */
  static HeadOffsets standingAlone(PageLayout layout) {
    int all = Residence.STREAMED.codes(layout);
    return HeadOffsets.inSlots(layout, all, 0, all);
  }

  /** Takes the slots that one more page will need. */
  void reserve(DeviceMemory memory, ArrayDeque<DeviceSlot> reserved) {
    if (residence.sketch() != 0) {
      reserved.add(memory.allocate(layout.lengthOf(residence.sketch())));
    }
    if (residence == Residence.DENSE) {
      reserved.add(memory.allocate(layout.lengthOf(residence.codes(layout))));
    }
  }

  /** Copies what it keeps of a new page into reserved slots. */
  void add(DirectBuffer page, ArrayDeque<DeviceSlot> reserved) {
    if (residence.sketch() != 0) {
      DeviceSlot sketch = reserved.remove();
      copy(page, residence.sketch(), sketch);
      addSketch(sketch);
    }
    if (residence == Residence.DENSE) {
      DeviceSlot headCodes = reserved.remove();
      copy(page, residence.codes(layout), headCodes);
      addCodes(headCodes);
    }
  }

  private void copy(DirectBuffer page, int sectionSet, DeviceSlot slot) {
    int at = 0;
    for (int left = sectionSet; left != 0; left &= left - 1) {
      Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
      slot.buffer().putBytes(at, page, layout.offset(kvHead, section), layout.length(section));
      at += layout.length(section);
    }
  }

  /** Lets go of everything and takes other slots. */
  void hold(Residence other, List<DeviceSlot> newSketches, List<DeviceSlot> newCodes) {
    release();
    residence = other;
    newSketches.forEach(this::addSketch);
    newCodes.forEach(this::addCodes);
  }

  /** Holds what another layer's head holds; has held nothing so far. */
  void share(HeadPages other) {
    residence = other.residence;
    // What is known of their contents is copied: a fork reads none of them.
    sketchAddresses = other.sketchAddresses.clone();
    sketchesToAsk = MemorySegment.ofArray(sketchAddresses);
    codesAddresses = other.codesAddresses.clone();
    squareScales = other.squareScales.clone();
    retainAll(other.sketches, sketches);
    retainAll(other.codes, codes);
    bytes = other.bytes;
  }

  private static void retainAll(List<DeviceSlot> from, List<DeviceSlot> to) {
    to.addAll(from);
    from.forEach(slot -> {
      var _ = slot.retain();
    });
  }

  private void addSketch(DeviceSlot slot) {
    int page = sketches.size();
    int room = sketchAddresses.length;
    sketchAddresses = put(sketchAddresses, page, slot.address());
    if (sketchAddresses.length > room) {
      sketchesToAsk = MemorySegment.ofArray(sketchAddresses);
    }
    if (page == squareScales.length) {
      squareScales = Arrays.copyOf(squareScales, Math.max(16, page + page / 2));
    }
    squareScales[page] = squareScale(slot.buffer());
    sketches.add(slot);
    bytes += slot.length();
  }

  private float squareScale(UnsafeBuffer sketch) {
    int at = layout.offsetIn(residence.sketch(), Section.K_SCALES);
    float sum = 0;
    for (int t = 0; t < TOKENS; t++) {
      float scale = Float.float16ToFloat(sketch.getShort(at + t * Short.BYTES, LITTLE_ENDIAN));
      sum += scale * scale;
    }
    return sum / TOKENS;
  }

  private void addCodes(DeviceSlot slot) {
    codesAddresses = put(codesAddresses, codes.size(), slot.address());
    codes.add(slot);
    bytes += slot.length();
  }

  private static long[] put(long[] addresses, int index, long address) {
    long[] room =
        index < addresses.length
            ? addresses
            : Arrays.copyOf(addresses, Math.max(16, index + index / 2));
    room[index] = address;
    return room;
  }

  void release() {
    sketches.forEach(DeviceSlot::release);
    codes.forEach(DeviceSlot::release);
    sketches.clear();
    codes.clear();
    bytes = 0;
  }
}
