package io.kvtier.gpuworker.session;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.PageTransport;
import io.kvtier.gpuworker.core.MeasuredRates;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import io.kvtier.v1.SectionsOf;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.BiConsumer;
import java.util.function.IntFunction;
import org.agrona.DirectBuffer;

/**
 * Brings sections of (page, head) pairs onto the device: from the tier in one batch, or from pages
 * that the tier has not acknowledged yet. Safe for any number of threads.
 */
final class CodesFetcher {
  /** Some sections, as a section set, of one head of one page of a layer. */
  record PageHead(int page, int kvHead, int sections) {}

  private final LayerShape shape;
  private final DeviceMemory memory;
  private final PageTransport tier;
  private final WriteBehind writeBehind;
  private final MeasuredRates rates;
  private final AtomicLong bytesFetched = new AtomicLong();

  CodesFetcher(
      LayerShape shape,
      DeviceMemory memory,
      PageTransport tier,
      WriteBehind writeBehind,
      MeasuredRates rates) {
    this.rates = rates;
    this.shape = shape;
    this.memory = memory;
    this.tier = tier;
    this.writeBehind = writeBehind;
  }

  /** Bytes of codes that have come from the tier so far, and of the requests for them. */
  long bytesFetched() {
    return bytesFetched.get();
  }

  /**
   * Fetches codes.
   *
   * @param wanted pairs of one layer, by page, then head
   * @param keys of all of the layer's pages, by page index
   * @return slots, each with a pair's sections laid end to end, in the order of {@code wanted},
   *     each held once for the caller
   * @throws io.kvtier.KvtierException if the tier refuses or device memory is full; nothing is held
   *     then
   */
  List<DeviceSlot> fetch(List<PageHead> wanted, List<PageKey> keys) {
    return fetch(wanted, keys, memory::allocate);
  }

  /**
   * The same into other memory.
   *
   * @param allocator gives a slot of a length
   */
  List<DeviceSlot> fetch(
      List<PageHead> wanted, List<PageKey> keys, IntFunction<DeviceSlot> allocator) {
    List<DeviceSlot> slots = new ArrayList<>(wanted.size());
    try {
      while (slots.size() < wanted.size()) {
        slots.add(allocator.apply(length(wanted.get(slots.size()))));
      }
      List<SectionsOf> remote = new ArrayList<>();
      List<Integer> firstOfRemote = new ArrayList<>();
      forEachPage(
          wanted,
          (from, to) -> {
            PageKey key = keys.get(wanted.get(from).page());
            ByteString pending = writeBehind.pending(key);
            if (pending == null) {
              remote.add(request(key, wanted, from, to));
              firstOfRemote.add(from);
            } else {
              copyPending(pending, wanted, from, to, slots);
            }
          });
      long bytes = 0;
      for (int i = 0; i < remote.size(); i++) {
        SectionsOf request = remote.get(i);
        bytes += request.getSerializedSize();
        bytes += (long) headCount(request) * length(wanted.get(firstOfRemote.get(i)));
        bytesFetched.addAndGet(request.getSerializedSize());
      }
      if (!remote.isEmpty()) {
        long startNs = System.nanoTime();
        tier.readSections(
            remote,
            (data, offset, length, index) ->
                copyFetched(
                    data,
                    offset,
                    length,
                    firstOfRemote.get(index),
                    headCount(remote.get(index)),
                    length(wanted.get(firstOfRemote.get(index))),
                    slots));
        rates.fetched(bytes, System.nanoTime() - startNs);
      }
      return slots;
    } catch (RuntimeException e) {
      slots.forEach(DeviceSlot::release);
      throw e;
    }
  }

  private static void forEachPage(List<PageHead> wanted, BiConsumer<Integer, Integer> range) {
    int from = 0;
    for (int i = 1; i <= wanted.size(); i++) {
      // Heads come in rising order within a page: the order in which the tier answers.
      if (i == wanted.size()
          || wanted.get(i).page() != wanted.get(from).page()
          || wanted.get(i).sections() != wanted.get(from).sections()
          || wanted.get(i).kvHead() <= wanted.get(i - 1).kvHead()) {
        range.accept(from, i);
        from = i;
      }
    }
  }

  private static SectionsOf request(PageKey key, List<PageHead> wanted, int from, int to) {
    long low = 0;
    long high = 0;
    for (int i = from; i < to; i++) {
      int head = wanted.get(i).kvHead();
      low |= head < Long.SIZE ? 1L << head : 0;
      high |= head < Long.SIZE ? 0 : 1L << (head - Long.SIZE);
    }
    return SectionsOf.newBuilder()
        .setKey(key.toByteString())
        .setHeadsLow(low)
        .setHeadsHigh(high)
        .setSections(wanted.get(from).sections())
        .build();
  }

  private static int headCount(SectionsOf request) {
    return Long.bitCount(request.getHeadsLow()) + Long.bitCount(request.getHeadsHigh());
  }

  private int length(PageHead pair) {
    return shape.layout().lengthOf(pair.sections());
  }

  private void copyFetched(
      DirectBuffer data,
      int offset,
      int length,
      int from,
      int pairs,
      int each,
      List<DeviceSlot> slots) {
    if (length != pairs * each) {
      throw new KvtierException(
          Code.LOST,
          "the tier answered %d bytes for %d heads of a page; they have %d"
              .formatted(length, pairs, pairs * each));
    }
    for (int at = 0; at < length; at += each) {
      slots.get(from + at / each).buffer().putBytes(0, data, offset + at, each);
    }
    bytesFetched.addAndGet(length);
  }

  private void copyPending(
      ByteString page, List<PageHead> wanted, int from, int to, List<DeviceSlot> slots) {
    PageLayout layout = shape.layout();
    byte[] bytes = page.toByteArray();
    for (int i = from; i < to; i++) {
      int at = 0;
      for (int left = wanted.get(i).sections(); left != 0; left &= left - 1) {
        Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
        int source = layout.offset(wanted.get(i).kvHead(), section);
        slots.get(i).buffer().putBytes(at, bytes, source, layout.length(section));
        at += layout.length(section);
      }
    }
  }
}
