package io.kvtier.gpuworker.tornado;

import static io.kvtier.page.PageLayout.TOKENS;
import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.kvtier.attention.GroupQuery;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.codec.PageEncoder;
import io.kvtier.gpuworker.cpu.SketchError;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.Section;
import java.nio.ByteBuffer;
import java.util.SplittableRandom;
import org.agrona.concurrent.UnsafeBuffer;
import uk.ac.manchester.tornado.api.types.arrays.FloatArray;
import uk.ac.manchester.tornado.api.types.arrays.IntArray;

/** One KV head's pages and one query of its group, as the kernels and as the oracle read them. */
final class CodedHead {
  final Residence residence;
  final PageLayout layout;
  final GroupQuery query;
  final int pages;

  /** The tables of sketches and codes, then the slots. */
  final IntArray arena;

  private final UnsafeBuffer[] sketches;
  private final UnsafeBuffer[] codes;
  private final int[] places;

  CodedHead(Residence residence, int group, int headDim, int pages, long seed) {
    this.residence = residence;
    this.layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, headDim);
    this.pages = pages;
    this.sketches = new UnsafeBuffer[pages];
    this.codes = new UnsafeBuffer[pages];
    this.places = new int[2 * pages];
    SplittableRandom random = new SplittableRandom(seed);
    PageEncoder encoder = new PageEncoder(layout);
    int at = 2 * pages;
    for (int page = 0; page < pages; page++) {
      UnsafeBuffer encoded = new UnsafeBuffer(new byte[layout.pageLength()]);
      float[] keys = gaussian(random, TOKENS * headDim, 2);
      float[] values = gaussian(random, TOKENS * headDim, 1);
      encoder.encode(
          new PageIdentity(new Fingerprint(1, 2), 0, page * TOKENS, TOKENS),
          keys,
          values,
          encoded,
          0);
      sketches[page] = sections(encoded, residence.sketch());
      codes[page] = sections(encoded, residence.codes(layout));
      places[page] = at;
      at += sketches[page].capacity() / Integer.BYTES;
      places[pages + page] = at;
      at += codes[page].capacity() / Integer.BYTES;
    }
    this.arena = new IntArray(at);
    for (int page = 0; page < pages; page++) {
      arena.set(page, places[page]);
      arena.set(pages + page, places[pages + page]);
      put(sketches[page], places[page]);
      put(codes[page], places[pages + page]);
    }
    this.query = new GroupQuery(group, headDim);
    query.load(gaussian(random, group * headDim, 1.2), 0, true, Kernels.scalar());
  }

  static float[] gaussian(SplittableRandom random, int length, double deviation) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) (random.nextGaussian() * deviation);
    }
    return x;
  }

  private UnsafeBuffer sections(UnsafeBuffer page, int set) {
    // Off-heap, since the oracle reads addresses; a multiple of four bytes, as slots are.
    ByteBuffer room = ByteBuffer.allocateDirect(Math.max(64, layout.lengthOf(set)));
    UnsafeBuffer buffer = new UnsafeBuffer(room);
    int at = 0;
    for (int left = set; left != 0; left &= left - 1) {
      Section section = Section.ofId(Integer.numberOfTrailingZeros(left));
      buffer.putBytes(at, page, layout.offset(0, section), layout.length(section));
      at += layout.length(section);
    }
    return buffer;
  }

  private void put(UnsafeBuffer slot, int place) {
    for (int i = 0; i < slot.capacity() / Integer.BYTES; i++) {
      arena.set(place + i, slot.getInt(i * Integer.BYTES, LITTLE_ENDIAN));
    }
  }

  int group() {
    return query.group();
  }

  int headDim() {
    return layout.headDim();
  }

  int blocks() {
    return (group() + StepLayout.QUERIES - 1) / StepLayout.QUERIES;
  }

  HeadOffsets offsets() {
    return HeadOffsets.inSlots(layout, residence.sketch(), 0, residence.codes(layout));
  }

  long sketch(int page) {
    return sketches[page].addressOffset();
  }

  long codes(int page) {
    return codes[page].addressOffset();
  }

  /** What estimates of a page are raised by. */
  float raise(int g, int page) {
    float sum = 0;
    int at = layout.offsetIn(residence.sketch(), Section.K_SCALES);
    for (int t = 0; t < TOKENS; t++) {
      float scale =
          Float.float16ToFloat(sketches[page].getShort(at + t * Short.BYTES, LITTLE_ENDIAN));
      sum += scale * scale;
    }
    return SketchError.raise(
        SketchError.variance(residence.planes()) * query.squareNorm(g), sum / TOKENS);
  }

  /** The step's ints, over all pages in chunks. */
  IntArray ints(int chunkPages) {
    IntArray ints = new IntArray(StepLayout.INTS);
    ints.init(0);
    ints.set(StepLayout.KV_HEADS, 1);
    ints.set(StepLayout.Q_GROUP, group());
    ints.set(StepLayout.HEAD_DIM, headDim());
    ints.set(StepLayout.BLOCKS, blocks());
    ints.set(StepLayout.PAGES, pages);
    ints.set(StepLayout.CHUNK_PAGES, chunkPages);
    ints.set(StepLayout.CHUNKS, (pages + chunkPages - 1) / chunkPages);
    int own = StepLayout.HEADS;
    HeadOffsets at = offsets();
    ints.set(own + StepLayout.PLANES, residence.planes());
    ints.set(own + StepLayout.SKETCH_TABLE, 0);
    ints.set(own + StepLayout.CODES_TABLE, pages);
    ints.set(own + StepLayout.CODE_PAGES, pages);
    ints.set(own + StepLayout.SCALES_AT, at.keyScales());
    ints.set(own + StepLayout.KEY_MEAN_AT, at.keyMean());
    ints.set(own + StepLayout.VALUE_MEAN_AT, at.valueMean());
    ints.set(own + StepLayout.FINE_AT, at.fine());
    ints.set(own + StepLayout.VALUES_AT, at.valueCodes());
    ints.set(own + StepLayout.VALUE_SCALES_AT, at.valueScales());
    ints.set(own + StepLayout.SLOTS, ints.get(StepLayout.CHUNKS));
    return ints;
  }

  /** A step's floats, of which it has constants alone. */
  static FloatArray constants() {
    FloatArray floats = new FloatArray(StepLayout.FLOATS);
    floats.init(0);
    StepInputs.writeConstants(floats);
    return floats;
  }

  /** The step's floats. */
  FloatArray floats() {
    FloatArray floats = constants();
    for (int i = 0; i < group() * headDim(); i++) {
      floats.set(StepLayout.ROTATED + i, query.rotated()[i]);
      floats.set(StepLayout.PLAIN + i, query.plain()[i]);
    }
    for (int g = 0; g < group(); g++) {
      int planes = residence.planes();
      floats.set(StepLayout.STEPS + g, query.scoreStep(g, planes));
      floats.set(StepLayout.BIASES + g, query.scoreBias(g, planes));
      floats.set(
          StepLayout.ERROR_VARIANCES + g, SketchError.variance(planes) * query.squareNorm(g));
      floats.set(StepLayout.OTHER_LSES + g, StepLayout.NONE);
    }
    return floats;
  }

  /** The step's ints, and tables behind them. */
  IntArray choice(int chunkPages) {
    IntArray ints = ints(chunkPages);
    int[] all = new int[StepLayout.INTS + blocks() * 8 * headDim()];
    for (int i = 0; i < StepLayout.INTS; i++) {
      all[i] = ints.get(i);
    }
    all[StepLayout.TABLES_AT] = StepLayout.INTS;
    for (int g = 0; g < group(); g++) {
      query.copyTables(g, all, StepLayout.INTS + g * 2 * headDim());
    }
    return IntArray.fromArray(all);
  }
}
