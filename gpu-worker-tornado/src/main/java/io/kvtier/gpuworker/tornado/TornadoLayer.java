package io.kvtier.gpuworker.tornado;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.core.MassHistogram;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A layer in a lane's resident buffer. The host keeps its side of everything in a layer of its own:
 * that one encodes pages to the bit as the format says, hands them to the tier, counts bytes and
 * reads rows back; this one copies to the device what kernels read.
 *
 * <p>The window is a ring: the row of position p is p modulo its rows.
 */
final class TornadoLayer implements DeviceLayer {
  private final DeviceLayer host;
  private final LayerShape shape;
  private final Lane lane;
  private final int rowBlocks;
  private final Place sinks;
  private final Place window;
  private final PageTable[] sketches;
  private final PageTable[] codes;
  private final Upload upload = new Upload();

  /**
   * An empty layer, or one that forks another.
   *
   * @throws io.kvtier.KvtierException EXHAUSTED if the lane has no room
   */
  TornadoLayer(DeviceLayer host, LayerShape shape, Lane lane) {
    this.host = host;
    this.shape = shape;
    this.lane = lane;
    int rowBytes = shape.rowLength() * shape.exactBytes();
    this.rowBlocks = Arena.blocksOf(rowBytes);
    this.sinks = Place.take(lane, 2L * shape.sinkTokens() * rowBlockBytes());
    try {
      this.window = Place.take(lane, 2L * shape.windowCapacity() * rowBlockBytes());
    } catch (RuntimeException e) {
      sinks.release();
      throw e;
    }
    this.sketches = tables();
    this.codes = tables();
  }

  private PageTable[] tables() {
    PageTable[] tables = new PageTable[shape.kvHeads()];
    java.util.Arrays.setAll(tables, head -> new PageTable(lane));
    return tables;
  }

  private long rowBlockBytes() {
    return (long) rowBlocks * WriteKernel.BLOCK * Integer.BYTES;
  }

  LayerShape shape() {
    return shape;
  }

  Lane lane() {
    return lane;
  }

  /** Where the kernels find the exact rows. */
  void describeExact(int[] ints) {
    int paged = host.pages() * TOKENS;
    ints[StepLayout.ELEMENT_BYTES] = shape.exactBytes();
    ints[StepLayout.ROW_ELEMENTS] =
        rowBlocks * WriteKernel.BLOCK * Integer.BYTES / shape.exactBytes();
    ints[StepLayout.SINKS] = sinkCount();
    ints[StepLayout.SINK_ROWS] = shape.sinkTokens();
    ints[StepLayout.SINK_PLACE] = sinks.firstInt();
    ints[StepLayout.WINDOW_COUNT] = host.tokens() - paged;
    ints[StepLayout.WINDOW_FIRST] = paged % shape.windowCapacity();
    ints[StepLayout.WINDOW_ROWS] = shape.windowCapacity();
    ints[StepLayout.WINDOW_PLACE] = window.firstInt();
  }

  /** Sinks that the window does not hold. */
  int sinkCount() {
    return host.pages() == 0 ? 0 : Math.min(shape.sinkTokens(), host.tokens());
  }

  int sketchTable(int kvHead) {
    return sketches[kvHead].firstInt();
  }

  int codesTable(int kvHead) {
    return codes[kvHead].firstInt();
  }

  @Override
  public int tokens() {
    return host.tokens();
  }

  @Override
  public int pages() {
    return host.pages();
  }

  @Override
  public void append(float[] keys, float[] values, int count, PageSink sink) {
    int before = host.tokens();
    int pagesAfter = shape.pages(before + count);
    List<Place> reserved = reserve(pagesAfter);
    try {
      host.append(keys, values, count, sink);
    } finally {
      for (int head = 0; head < shape.kvHeads(); head++) {
        takeOver(host.sketches(head), sketches[head], reserved);
        takeOver(host.codes(head), codes[head], reserved);
      }
      reserved.forEach(Place::release);
      writeRows(keys, values, before);
      writeTables();
      upload.flush(lane);
    }
  }

  /** Takes all the room that an append will need, or none. */
  private List<Place> reserve(int pagesAfter) {
    List<Place> reserved = new ArrayList<>();
    try {
      for (int head = 0; head < shape.kvHeads(); head++) {
        Residence residence = host.residence(head);
        int sketchBytes = shape.sketchBytes(residence);
        int codesBytes = residence == Residence.DENSE ? shape.codesBytes(residence) : 0;
        sketches[head].reserve(sketchBytes > 0 ? pagesAfter : 0);
        codes[head].reserve(codesBytes > 0 ? pagesAfter : 0);
        // In the order in which pages are taken over: a head's sketches, then its codes.
        reserve(sketchBytes, pagesAfter - host.pages(), reserved);
        reserve(codesBytes, pagesAfter - host.pages(), reserved);
      }
      return reserved;
    } catch (RuntimeException e) {
      reserved.forEach(Place::release);
      writeTables();
      upload.flush(lane);
      throw e;
    }
  }

  private void reserve(int bytes, int pages, List<Place> reserved) {
    for (int page = 0; page < pages && bytes > 0; page++) {
      reserved.add(Place.take(lane, bytes));
    }
  }

  /** Copies slots that are not resident yet to reserved places, which it takes off the list. */
  private void takeOver(List<DeviceSlot> slots, PageTable table, List<Place> reserved) {
    List<DeviceSlot> fresh = slots.subList(table.count(), slots.size());
    for (DeviceSlot slot : fresh) {
      if (slot.copy() == null) {
        int blocks = Arena.blocksOf(slot.length());
        Place place = removeOf(blocks, reserved);
        upload.add(place.first(), slot.buffer(), slot.length());
        slot.attach(place);
      }
      if (!(slot.copy() instanceof Place place) || place.lane() != lane) {
        throw new IllegalStateException("the slot's copy is elsewhere");
      }
      table.add(place);
    }
  }

  private static Place removeOf(int blocks, List<Place> reserved) {
    for (int i = 0; i < reserved.size(); i++) {
      if (reserved.get(i).blocks() == blocks) {
        return reserved.remove(i);
      }
    }
    throw new IllegalStateException(
        "nothing was reserved for a slot of %d blocks".formatted(blocks));
  }

  private void writeTables() {
    for (int head = 0; head < shape.kvHeads(); head++) {
      sketches[head].writeTo(upload);
      codes[head].writeTo(upload);
    }
  }

  /** Copies those rows of an append that became exact ones. */
  private void writeRows(float[] keys, float[] values, int before) {
    int paged = host.pages() * TOKENS;
    for (int position = before; position < host.tokens(); position++) {
      int from = (position - before) * shape.rowLength();
      if (position < shape.sinkTokens()) {
        writeRow(sinks, position, shape.sinkTokens(), keys, values, from);
      }
      if (position >= paged) {
        int row = position % shape.windowCapacity();
        writeRow(window, row, shape.windowCapacity(), keys, values, from);
      }
    }
  }

  private void writeRow(Place place, int row, int rows, float[] keys, float[] values, int from) {
    int length = shape.rowLength();
    int bytes = shape.exactBytes();
    upload.add(place.first() + row * rowBlocks, rounded(keys, from), 0, length, bytes);
    upload.add(place.first() + (rows + row) * rowBlocks, rounded(values, from), 0, length, bytes);
  }

  /** A row as the host's side keeps it: of bf16 where elements take two bytes. */
  private float[] rounded(float[] rows, int from) {
    float[] row = java.util.Arrays.copyOfRange(rows, from, from + shape.rowLength());
    if (shape.exactBytes() == Short.BYTES) {
      for (int i = 0; i < row.length; i++) {
        int bits = Float.floatToRawIntBits(row[i]);
        // To nearest, ties to even.
        row[i] = Float.intBitsToFloat((bits + 0x7fff + (bits >>> 16 & 1)) & 0xffff0000);
      }
    }
    return row;
  }

  @Override
  public void restore(List<PageKey> pageKeys, float[] sinkKeys, float[] sinkValues) {
    host.restore(pageKeys, sinkKeys, sinkValues);
    for (int head = 0; head < shape.kvHeads(); head++) {
      sketches[head].clear();
      codes[head].clear();
    }
    for (int t = 0; t < shape.sinkTokens(); t++) {
      writeRow(sinks, t, shape.sinkTokens(), sinkKeys, sinkValues, t * shape.rowLength());
    }
    writeTables();
    upload.flush(lane);
  }

  @Override
  public List<PageKey> pageKeys() {
    return host.pageKeys();
  }

  @Override
  public Residence residence(int kvHead) {
    return host.residence(kvHead);
  }

  @Override
  public List<DeviceSlot> sketches(int kvHead) {
    return host.sketches(kvHead);
  }

  @Override
  public List<DeviceSlot> codes(int kvHead) {
    return host.codes(kvHead);
  }

  @Override
  public void hold(
      int kvHead, Residence residence, List<DeviceSlot> sketchSlots, List<DeviceSlot> codeSlots) {
    List<Place> reserved = new ArrayList<>();
    try {
      reserveMissing(sketchSlots, reserved);
      reserveMissing(codeSlots, reserved);
      sketches[kvHead].reserve(sketchSlots.size());
      codes[kvHead].reserve(codeSlots.size());
      host.hold(kvHead, residence, sketchSlots, codeSlots);
      sketches[kvHead].clear();
      codes[kvHead].clear();
      takeOver(sketchSlots, sketches[kvHead], reserved);
      takeOver(codeSlots, codes[kvHead], reserved);
    } finally {
      reserved.forEach(Place::release);
      writeTables();
      upload.flush(lane);
    }
  }

  private void reserveMissing(List<DeviceSlot> slots, List<Place> reserved) {
    for (DeviceSlot slot : slots) {
      if (slot.copy() == null) {
        reserved.add(Place.take(lane, slot.length()));
      }
    }
  }

  @Override
  public LayerPass newPass(List<HeadPolicy> policies) {
    return new TornadoPass(this, policies);
  }

  /** On the host: it happens once a session, after its prefill. */
  @Override
  public void profile(int kvHead, float[] query, int at, int position, MassHistogram[] masses) {
    host.profile(kvHead, query, at, position, masses);
  }

  @Override
  public double scoreVariance(int kvHead, float[] query, int at) {
    return host.scoreVariance(kvHead, query, at);
  }

  @Override
  public void readRow(
      int kvHead, int position, @Nullable DeviceSlot slot, float[] keys, float[] values, int at) {
    host.readRow(kvHead, position, slot, keys, values, at);
  }

  @Override
  public boolean isExact(int position) {
    return host.isExact(position);
  }

  @Override
  public DeviceLayer fork() {
    DeviceLayer forked = host.fork();
    TornadoLayer fork;
    try {
      fork = new TornadoLayer(forked, shape, lane);
    } catch (RuntimeException e) {
      forked.release();
      throw e;
    }
    try {
      fork.takeAll();
      return fork;
    } catch (RuntimeException e) {
      fork.release();
      throw e;
    }
  }

  /** Makes resident what the host's side has, all of whose slots are resident already. */
  private void takeAll() {
    for (int head = 0; head < shape.kvHeads(); head++) {
      sketches[head].reserve(host.sketches(head).size());
      codes[head].reserve(host.codes(head).size());
      takeOver(host.sketches(head), sketches[head], List.of());
      takeOver(host.codes(head), codes[head], List.of());
    }
    float[] keys = new float[shape.rowLength()];
    float[] values = new float[shape.rowLength()];
    int paged = host.pages() * TOKENS;
    for (int position = 0; position < host.tokens(); position++) {
      boolean sink = position < shape.sinkTokens();
      if (!sink && position < paged) {
        position = paged - 1;
        continue;
      }
      for (int head = 0; head < shape.kvHeads(); head++) {
        host.readRow(head, position, null, keys, values, head * shape.headDim());
      }
      if (sink) {
        writeRow(sinks, position, shape.sinkTokens(), keys, values, 0);
      }
      if (position >= paged) {
        int row = position % shape.windowCapacity();
        writeRow(window, row, shape.windowCapacity(), keys, values, 0);
      }
    }
    writeTables();
    upload.flush(lane);
  }

  @Override
  public long residentBytes() {
    return host.residentBytes();
  }

  /**
   * What appends are sure to find, whatever holes the lane has: a layer that was told so gives up
   * bytes before it is refused.
   */
  @Override
  public long bytesLeft() {
    int longest = 1;
    long tables = 0;
    for (int head = 0; head < shape.kvHeads(); head++) {
      Residence residence = host.residence(head);
      int codesBytes = residence == Residence.DENSE ? shape.codesBytes(residence) : 0;
      int slot = Math.max(shape.sketchBytes(residence), codesBytes);
      int table = Math.max(sketches[head].nextBlocks(), codes[head].nextBlocks());
      longest = Math.max(longest, Math.max(Arena.blocksOf(slot), table));
      tables += sketches[head].nextBlocks() + codes[head].nextBlocks();
    }
    long tableBytes = tables * WriteKernel.BLOCK * Integer.BYTES;
    return Math.max(0, lane.arena.bytesFree(longest) - tableBytes);
  }

  @Override
  public List<PageKey> release() {
    List<PageKey> unshared = host.release();
    for (int head = 0; head < shape.kvHeads(); head++) {
      sketches[head].release();
      codes[head].release();
    }
    sinks.release();
    window.release();
    return unshared;
  }
}
