package io.kvtier.gpuworker.device;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.attention.RowForm;
import io.kvtier.codec.PageDecoder;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.Section;
import io.kvtier.page.TokenRows;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.function.BiFunction;
import java.util.stream.IntStream;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A layer with random tokens, the pages it gave away, and the rows that a reader of those pages
 * would see.
 */
final class LayerFixture implements DeviceLayer.PageSink {
  static final Fingerprint MODEL = new Fingerprint(1, 2);
  private static final UUID SESSION = new UUID(3, 4);

  final LayerShape shape;
  final DeviceLayer layer;
  final List<byte[]> pages = new ArrayList<>();
  final float[] keys;
  final float[] values;
  final int tokens;
  private final DeviceMemory memory;

  LayerFixture(
      AttentionDevice device, LayerShape shape, int tokens, List<HeadPolicy> policies, long seed) {
    this.shape = shape;
    this.tokens = tokens;
    this.memory = device.memory();
    this.layer = device.newLayer(0, shape);
    SplittableRandom random = new SplittableRandom(seed);
    this.keys = gaussian(random, tokens * shape.rowLength(), 2);
    this.values = gaussian(random, tokens * shape.rowLength(), 1);
    addCommonChannel(keys);
    for (int head = 0; head < policies.size(); head++) {
      layer.hold(head, policies.get(head).residence(), List.of(), List.of());
    }
    appendInChunks(random);
  }

  private LayerFixture(AttentionDevice device, LayerFixture other, int pageCount) {
    this.shape = other.shape;
    this.tokens = other.tokens;
    this.memory = device.memory();
    this.layer = device.newLayer(0, shape);
    this.keys = other.keys;
    this.values = other.values;
    pages.addAll(other.pages.subList(0, pageCount));
  }

  /** The same tokens in another layer, which takes the first pages over and appends the rest. */
  LayerFixture restored(AttentionDevice device, int pageCount, List<HeadPolicy> policies) {
    LayerFixture restored = new LayerFixture(device, this, pageCount);
    List<PageKey> pageKeys =
        IntStream.range(0, pageCount).mapToObj(page -> key(page, new UnsafeBuffer())).toList();
    int sinks = shape.sinkTokens() * shape.rowLength();
    restored.layer.restore(pageKeys, Arrays.copyOf(keys, sinks), Arrays.copyOf(values, sinks));
    for (int head = 0; head < policies.size(); head++) {
      Residence residence = policies.get(head).residence();
      int resident = residence == Residence.DENSE ? residence.codes(shape.layout()) : 0;
      restored.layer.hold(
          head,
          residence,
          restored.ofEachPage(head, residence.sketch()),
          restored.ofEachPage(head, resident));
    }
    int from = pageCount * TOKENS * shape.rowLength();
    restored.layer.append(
        Arrays.copyOfRange(keys, from, keys.length),
        Arrays.copyOfRange(values, from, values.length),
        tokens - pageCount * TOKENS,
        restored);
    return restored;
  }

  private List<DeviceSlot> ofEachPage(int head, int set) {
    int count = set == 0 ? 0 : pages.size();
    return IntStream.range(0, count).mapToObj(page -> sections(page, head, set)).toList();
  }

  /** Real keys share large channels; without them a page mean would be nothing. */
  private void addCommonChannel(float[] rows) {
    for (int i = 0; i < rows.length; i += shape.headDim()) {
      rows[i + 1] += 6;
    }
  }

  private void appendInChunks(SplittableRandom random) {
    int at = 0;
    while (at < tokens) {
      int n = Math.min(tokens - at, 1 + random.nextInt(300));
      int from = at * shape.rowLength();
      int to = from + n * shape.rowLength();
      layer.append(
          Arrays.copyOfRange(keys, from, to), Arrays.copyOfRange(values, from, to), n, this);
      at += n;
    }
  }

  static LayerShape shape(int qHeads, int kvHeads, int headDim) {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, kvHeads, headDim);
    return new LayerShape(MODEL, layout, qHeads, Float.BYTES, 4, 64);
  }

  static float[] gaussian(SplittableRandom random, int length, double deviation) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) (random.nextGaussian() * deviation);
    }
    return x;
  }

  @Override
  public PageKey key(int pageIndex, DirectBuffer page) {
    return PageKey.ofSession(SESSION, pageIndex, MODEL, 0, shape.layout());
  }

  @Override
  public void accept(PageKey key, DirectBuffer page, int length) {
    byte[] bytes = new byte[length];
    page.getBytes(0, bytes);
    pages.add(bytes);
  }

  /**
   * Keys (or values) as the pages hold them, exact rows as they were: {@code
   * [tokens][kvHeads][headDim]}.
   */
  float[] decoded(boolean wantKeys) {
    float[] rows = (wantKeys ? keys : values).clone();
    PageDecoder decoder = new PageDecoder(shape.layout());
    for (int page = 0; page < pages.size(); page++) {
      UnsafeBuffer buffer = new UnsafeBuffer(pages.get(page));
      for (int head = 0; head < shape.kvHeads(); head++) {
        int at = page * TOKENS * shape.rowLength() + head * shape.headDim();
        if (wantKeys) {
          decoder.keys(buffer, 0, head, TOKENS, rows, at, shape.rowLength());
        } else {
          decoder.values(buffer, 0, head, TOKENS, rows, at, shape.rowLength());
        }
      }
    }
    int sinks = Math.min(tokens, shape.sinkTokens()) * shape.rowLength();
    System.arraycopy(wantKeys ? keys : values, 0, rows, 0, sinks);
    return rows;
  }

  /** A head's sections of a page, laid end to end; held once. */
  DeviceSlot sections(int page, int head, int sections) {
    DeviceSlot slot = memory.allocate(shape.layout().lengthOf(sections));
    int at = 0;
    for (int left = sections; left != 0; left &= left - 1) {
      Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
      int from = shape.layout().offset(head, section);
      int length = shape.layout().length(section);
      slot.buffer().putBytes(at, pages.get(page), from, length);
      at += length;
    }
    return slot;
  }

  /** Rows of a head's chosen tokens as they are fetched, one behind the other; held once. */
  DeviceSlot rows(LayerPass pass, int head) {
    TokenRows rows = new TokenRows(shape.layout(), pass.rowSections(head));
    RowForm form = shape.rowForm();
    int fetchedAt = form.fetchedAt(rows.sectionSet());
    DeviceSlot slot = memory.allocate(Math.max(1, pass.chosenCount(head) * form.bytes()));
    for (int i = 0; i < pass.chosenCount(head); i++) {
      int position = pass.chosenPosition(head, i);
      rows.takeFromPage(
          new UnsafeBuffer(pages.get(position / TOKENS)),
          0,
          head,
          position % TOKENS,
          slot.buffer(),
          i * form.bytes() + fetchedAt);
      form.markFetched(slot.buffer(), i * form.bytes());
    }
    return slot;
  }

  /** What four bits leave of a head's chosen tokens, by the same indices; held once. */
  private DeviceSlot rests(LayerPass pass, int head) {
    TokenRows rests = new TokenRows(shape.layout(), Residence.finer(shape.layout()));
    DeviceSlot slot = memory.allocate(Math.max(1, pass.chosenCount(head) * rests.length()));
    for (int i = 0; i < pass.chosenCount(head); i++) {
      int position = pass.chosenPosition(head, i);
      UnsafeBuffer page = new UnsafeBuffer(pages.get(position / TOKENS));
      int at = i * rests.length();
      rests.takeFromPage(page, 0, head, position % TOKENS, slot.buffer(), at);
    }
    return slot;
  }

  /**
   * Gives a pass everything it needs, in an order that a seed says: rows in some rounds, the last
   * ones of a head perhaps first; streamed pages in parts.
   *
   * @param rowsOf what {@link #rows} gives, or a planted bug
   */
  void giveAll(LayerPass pass, BiFunction<LayerPass, Integer, DeviceSlot> rowsOf, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    List<DeviceSlot> held = new ArrayList<>();
    List<DeviceSlot> rests = new ArrayList<>();
    int rounds = 1 + random.nextInt(3);
    for (int head = 0; head < shape.kvHeads(); head++) {
      held.add(pass.rowSections(head) == 0 ? null : rowsOf.apply(pass, head));
      boolean finer = pass.rowSections(head) != 0 && shape.finerRowBytes() > 0;
      rests.add(finer ? rests(pass, head) : null);
    }
    for (int round = 1; round <= rounds; round++) {
      for (int head = 0; head < shape.kvHeads(); head++) {
        DeviceSlot slot = held.get(head);
        int rowBytes = shape.rowForm().bytes();
        for (int i = pass.chosenCount(head) - 1; slot != null && i >= 0; i--) {
          if (round == rounds || random.nextInt(3) > 0) {
            pass.giveRow(head, i, slot, i * rowBytes);
          }
          if (pass.refines(head, i) && (round == rounds || random.nextInt(3) > 0)) {
            pass.giveRest(head, i, rests.get(head), i * shape.finerRowBytes());
          }
        }
      }
      pass.attendRows();
      if (random.nextBoolean()) {
        pass.attendResident();
      }
    }
    held.stream().filter(Objects::nonNull).forEach(DeviceSlot::release);
    rests.stream().filter(Objects::nonNull).forEach(DeviceSlot::release);
    giveStreamed(pass, random);
  }

  /** Gives a pass whose heads all choose the rows before a position, then the others. */
  void giveInTwo(LayerPass pass, int cut) {
    List<DeviceSlot> held = new ArrayList<>();
    for (boolean before : new boolean[] {true, false}) {
      for (int head = 0; head < shape.kvHeads(); head++) {
        DeviceSlot rows = rows(pass, head);
        DeviceSlot rests = rests(pass, head);
        held.addAll(List.of(rows, rests));
        for (int i = 0; i < pass.chosenCount(head); i++) {
          if (pass.chosenPosition(head, i) < cut == before) {
            pass.giveRow(head, i, rows, i * shape.rowForm().bytes());
            if (pass.refines(head, i)) {
              pass.giveRest(head, i, rests, i * shape.finerRowBytes());
            }
          }
        }
      }
      pass.attendRows();
    }
    held.forEach(DeviceSlot::release);
  }

  private void giveStreamed(LayerPass pass, SplittableRandom random) {
    int[] streamed = IntStream.range(0, shape.kvHeads()).filter(pass::streams).toArray();
    int all = streamed.length * pages.size();
    int from = 0;
    while (from < all) {
      int count = 1 + random.nextInt(all - from);
      int[] ofPages = new int[count];
      int[] ofHeads = new int[count];
      DeviceSlot[] codes = new DeviceSlot[count];
      for (int i = 0; i < count; i++) {
        ofPages[i] = (from + i) / streamed.length;
        ofHeads[i] = streamed[(from + i) % streamed.length];
        codes[i] = sections(ofPages[i], ofHeads[i], Residence.STREAMED.codes(shape.layout()));
      }
      pass.attendPages(ofPages, ofHeads, codes, count);
      Arrays.stream(codes).forEach(DeviceSlot::release);
      from += count;
    }
  }
}
