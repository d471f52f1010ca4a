package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.invalid;
import static io.kvtier.page.PageLayout.TOKENS;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.kvtier.codec.PageEncoder;
import io.kvtier.codec.RawRows;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.page.Section;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Makes pages that the tier has lost again, of rows that are sent once more. Encoding is
 * deterministic, so the same rows make the same bytes; others are refused. The caller holds the
 * layer's lock.
 */
final class PageRepair {
  private final LayerShape shape;
  private final WriteBehind writeBehind;

  PageRepair(LayerShape shape, WriteBehind writeBehind) {
    this.shape = shape;
    this.writeBehind = writeBehind;
  }

  /**
   * Stores pages again.
   *
   * @param position of the first row, a multiple of 64
   * @param tokens a multiple of 64
   * @param keys {@code [tokens][kvHeads][headDim]}
   * @param values same shape
   * @param sink takes the sink rows too, if the layer's first page is among them
   * @throws io.kvtier.KvtierException INVALID if these are not rows of whole pages of the layer, or
   *     not those that the pages were made of; nothing is stored then
   */
  void repair(
      SessionLayer target,
      int layer,
      int position,
      int tokens,
      float[] keys,
      float[] values,
      TierSink sink) {
    int pages = target.device.pages();
    if (position < 0
        || position % TOKENS != 0
        || tokens % TOKENS != 0
        || position / TOKENS + tokens / TOKENS > pages) {
      throw invalid(
          "a repair of layer %d has %d tokens at position %s; it must be of whole pages of %d"
              + " tokens within the first %d",
          layer, tokens, Integer.toUnsignedString(position), TOKENS, pages * TOKENS);
    }
    int first = position / TOKENS;
    List<PageKey> names = target.device.pageKeys().subList(first, first + tokens / TOKENS);
    List<ByteString> made = new ArrayList<>();
    PageEncoder encoder = new PageEncoder(shape.layout());
    int length = TOKENS * shape.rowLength();
    for (int page = 0; page < names.size(); page++) {
      byte[] bytes = new byte[shape.layout().pageLength()];
      UnsafeBuffer buffer = new UnsafeBuffer(bytes);
      PageIdentity identity =
          new PageIdentity(shape.fingerprint(), layer, (first + page) * TOKENS, TOKENS);
      encoder.encode(
          identity,
          asKept(keys, page * length, length),
          asKept(values, page * length, length),
          buffer,
          0);
      requireSame(target, first + page, names.get(page), buffer);
      made.add(UnsafeByteOperations.unsafeWrap(bytes));
    }
    try (var _ = writeBehind.requireRoom(TierSink.bytes(shape, made.size(), first == 0))) {
      for (int page = 0; page < names.size(); page++) {
        writeBehind.enqueueAside(layer, names.get(page), made.get(page));
      }
      if (first == 0) {
        sink.acceptSinks(target.device);
      }
    }
  }

  /** Rows as they leave the window, where exact ones are kept in the session's type. */
  private float[] asKept(float[] rows, int from, int length) {
    float[] kept = Arrays.copyOfRange(rows, from, from + length);
    for (int i = 0; shape.exactBytes() == Short.BYTES && i < length; i++) {
      kept[i] = RawRows.ofBf16(RawRows.toBf16(kept[i]));
    }
    return kept;
  }

  private void requireSame(SessionLayer target, int page, PageKey name, DirectBuffer made) {
    int checksum = Pages.headerChecksum(made, 0);
    boolean same =
        name.isOfPrefix()
            ? name.headerChecksum() == checksum
            : target.madeAs(page, checksum) && fitsWhatIsHeld(target.device, page, made);
    if (!same) {
      throw invalid(
          "the rows of the repair at position %d are not those that the layer was sent before",
          page * TOKENS);
    }
  }

  /** Compares with the sketches and codes that are on the device. */
  private boolean fitsWhatIsHeld(DeviceLayer device, int page, DirectBuffer made) {
    for (int head = 0; head < shape.kvHeads(); head++) {
      int sketch = device.residence(head).sketch();
      List<DeviceSlot> sketches = device.sketches(head);
      List<DeviceSlot> codes = device.codes(head);
      int coded = device.residence(head).codes(shape.layout());
      boolean sketchFits = sketches.isEmpty() || same(sketches.get(page), sketch, head, made);
      boolean codesFit = codes.isEmpty() || same(codes.get(page), coded, head, made);
      if (!sketchFits || !codesFit) {
        return false;
      }
    }
    return true;
  }

  private boolean same(DeviceSlot slot, int sections, int head, DirectBuffer made) {
    PageLayout layout = shape.layout();
    for (int left = sections; left != 0; left &= left - 1) {
      Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
      int length = layout.length(section);
      UnsafeBuffer held =
          new UnsafeBuffer(slot.buffer(), layout.offsetIn(sections, section), length);
      if (!held.equals(new UnsafeBuffer(made, layout.offset(head, section), length))) {
        return false;
      }
    }
    return true;
  }
}
