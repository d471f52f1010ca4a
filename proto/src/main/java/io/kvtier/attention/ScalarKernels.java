package io.kvtier.attention;

import static io.kvtier.page.PageLayout.TOKENS;

import io.kvtier.codec.RawRows;
import io.kvtier.codec.RotLevels;
import io.kvtier.codec.Vectors;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/** The kernels in plain loops: the specification. */
final class ScalarKernels implements Kernels {
  static final ScalarKernels INSTANCE = new ScalarKernels();

  private static final RotLevels LEVELS = RotLevels.of(4);

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Weights below this exponent are 0. */
  private static final float EXPONENT_MIN = -87;

  /** Estimated weights stay between e^-this and e^this: 2^125.5, near fp32's end. */
  private static final float ESTIMATE_MAX = 86.98997f;

  private ScalarKernels() {}

  /** With the reason, where the vector kernels are not to be had. */
  @Override
  public String description() {
    return Vectors.enabled() ? "scalar kernels" : Vectors.description();
  }

  private static int u8(long address) {
    return OffHeap.ALL.get(ValueLayout.JAVA_BYTE, address) & 0xFF;
  }

  private static float half(long address, int index) {
    return Float.float16ToFloat(OffHeap.ALL.get(SHORT, address + 2L * index));
  }

  @Override
  public void fillTables(GroupQuery query, int g) {
    float toStep = query.step[g] == 0 ? 0 : 1 / query.step[g];
    int index = 0;
    for (int plane = 0; plane < 2; plane++) {
      float weight = (plane == 0 ? GroupQuery.SIGN_WEIGHT : GroupQuery.COARSE_WEIGHT) * toStep;
      for (int i = 0; i < query.headDim(); i += 4) {
        float q0 = query.rotated[g * query.headDim() + i] * weight;
        float q1 = query.rotated[g * query.headDim() + i + 1] * weight;
        float q2 = query.rotated[g * query.headDim() + i + 2] * weight;
        float q3 = query.rotated[g * query.headDim() + i + 3] * weight;
        float lowest = -(Math.abs(q0) + Math.abs(q1) + Math.abs(q2) + Math.abs(q3));
        long table = query.table(g, index++);
        for (int entry = 0; entry < GroupQuery.ENTRIES; entry++) {
          float sum = (entry & 1) == 0 ? -q0 : q0;
          sum += (entry & 2) == 0 ? -q1 : q1;
          sum += (entry & 4) == 0 ? -q2 : q2;
          sum += (entry & 8) == 0 ? -q3 : q3;
          byte quantized = (byte) Math.min(GroupQuery.ENTRY_MAX, (int) (sum - lowest + .5f));
          for (int copy = 0; copy < GroupQuery.TABLE_BYTES; copy += GroupQuery.ENTRIES) {
            OffHeap.ALL.set(ValueLayout.JAVA_BYTE, table + copy + entry, quantized);
          }
        }
      }
    }
  }

  @Override
  public void sketchScores(
      GroupQuery query, HeadOffsets at, long sketch, int planes, Scratch scratch, float[] scores) {
    int rows = planes * at.headDim() / 8;
    for (int g = 0; g < query.group(); g++) {
      float step = query.scoreStep(g, planes);
      float bias = query.scoreBias(g, planes);
      float mean = meanScore(query, g, sketch + at.keyMean());
      for (int t = 0; t < TOKENS; t++) {
        int sum = 0;
        for (int row = 0; row < rows; row++) {
          int bits = u8(sketch + at.planes() + (long) row * TOKENS + t);
          sum += u8(query.table(g, 2 * row) + (bits & 15));
          sum += u8(query.table(g, 2 * row + 1) + (bits >> 4));
        }
        scores[g * TOKENS + t] = (sum * step + bias) * half(sketch + at.keyScales(), t) + mean;
      }
    }
  }

  @Override
  public void sketchWeights(
      GroupQuery query,
      HeadOffsets at,
      long[] sketches,
      int from,
      int to,
      int planes,
      Scratch scratch,
      float[] references,
      int referencesAt,
      long weights,
      float[] totals,
      float[] meanScores,
      int totalsAt) {
    for (int page = from; page < to; page++) {
      sketchScores(query, at, sketches[page], planes, scratch, scratch.scores);
      for (int g = 0; g < query.group(); g++) {
        int slot = (page - from) * query.group() + g;
        float total = 0;
        for (int t = 0; t < TOKENS; t++) {
          float x = scratch.scores[g * TOKENS + t] - references[referencesAt + slot];
          float weight = (float) Math.exp(Math.clamp(x, -ESTIMATE_MAX, ESTIMATE_MAX));
          short rounded = RawRows.toBf16(weight);
          OffHeap.ALL.set(SHORT, weights + 2L * (slot * TOKENS + t), rounded);
          total += RawRows.ofBf16(rounded);
        }
        totals[totalsAt + slot] = total;
        meanScores[totalsAt + slot] = meanScore(query, g, sketches[page] + at.keyMean());
      }
    }
  }

  @Override
  public void touch(long address, int length, Scratch scratch) {}

  private static float meanScore(GroupQuery query, int g, long mean) {
    float dot = 0;
    for (int i = 0; i < query.headDim(); i++) {
      dot += query.plain[g * query.headDim() + i] * half(mean, i);
    }
    return dot;
  }

  @Override
  public void exactScores(
      GroupQuery query,
      HeadOffsets at,
      long sketch,
      long codes,
      long tokens,
      Scratch scratch,
      float[] scores) {
    for (int g = 0; g < query.group(); g++) {
      float mean = meanScore(query, g, sketch + at.keyMean());
      for (int t = 0; t < TOKENS; t++) {
        if ((tokens >>> t & 1) == 0) {
          scores[g * TOKENS + t] = Float.NEGATIVE_INFINITY;
          continue;
        }
        float dot = 0;
        for (int i = 0; i < at.headDim(); i++) {
          int code =
              bit(sketch + at.planes(), i, t) << 3
                  | bit(sketch + at.planes() + at.planeLength(), i, t) << 2
                  | bit(codes + at.fine(), i, t) << 1
                  | bit(codes + at.fine() + at.planeLength(), i, t);
          dot += query.rotated[g * at.headDim() + i] * LEVELS.level(code);
        }
        scores[g * TOKENS + t] = dot * half(sketch + at.keyScales(), t) + mean;
      }
    }
  }

  private static int bit(long plane, int dimension, int token) {
    return u8(plane + (long) (dimension / 8) * TOKENS + token) >> dimension % 8 & 1;
  }

  @Override
  public float max(float[] scores, int at, int count) {
    float max = Float.NEGATIVE_INFINITY;
    for (int i = 0; i < count; i++) {
      max = Math.max(max, scores[at + i]);
    }
    return max;
  }

  @Override
  public float weigh(
      float[] scores, int at, float reference, float[] weights, int weightsAt, int count) {
    float sum = 0;
    for (int i = 0; i < count; i++) {
      float x = scores[at + i] - reference;
      float weight = x < EXPONENT_MIN ? 0 : (float) Math.exp(x);
      weights[weightsAt + i] = weight;
      sum += weight;
    }
    return sum;
  }

  @Override
  public void maxima(float[] scores, int group, float[] maxima) {
    for (int g = 0; g < group; g++) {
      maxima[g] = max(scores, g * TOKENS, TOKENS);
    }
  }

  @Override
  public void weighPage(
      float[] scores, int group, float[] references, float[] weights, float[] totals) {
    for (int g = 0; g < group; g++) {
      totals[g] = weigh(scores, g * TOKENS, references[g], weights, g * TOKENS, TOKENS);
    }
  }

  @Override
  public void addValues(
      HeadOffsets at, long codes, int group, float[] weights, Scratch scratch, float[] sums) {
    for (int t = 0; t < TOKENS; t++) {
      for (int g = 0; g < group; g++) {
        addRow(at, codes, t, weights[g * TOKENS + t], sums, g * scratch.width());
      }
    }
  }

  @Override
  public void prefetch(long address, int length) {}

  @Override
  public void prefetchEach(
      MemorySegment addresses, int from, int to, int at, int lines, int step) {}

  @Override
  public void prefetchChosen(RowForm form, MemorySegment rows, int from, int to) {}

  @Override
  public void chosenScores(
      GroupQuery query,
      RowForm form,
      long[] rows,
      int[] positions,
      int from,
      int to,
      float[] meanScores,
      Scratch scratch,
      float[] scores,
      int stride,
      float[] valueScales) {
    int headDim = form.headDim();
    for (int i = from; i < to; i++) {
      float keyScale = half(rows[i] + form.keyScaleAt(), 0);
      for (int g = 0; g < query.group(); g++) {
        float dot = 0;
        for (int d = 0; d < headDim; d++) {
          int pair = u8(rows[i] + d / 2);
          int code = d % 2 == 0 ? pair & 15 : pair >> 4;
          dot += query.rotated[g * headDim + d] * LEVELS.level(code);
        }
        float mean = meanScores[positions[i] / TOKENS * query.group() + g];
        scores[g * stride + i] = dot * keyScale + mean;
      }
      valueScales[i] = half(rows[i] + form.valueScaleAt(), 0);
    }
  }

  @Override
  public void addChosen(
      RowForm form,
      long[] rows,
      int from,
      int to,
      int group,
      float[] scaled,
      int scaledAt,
      float[] sums) {
    int width = Scratch.width(form.headDim());
    for (int i = from; i < to; i++) {
      for (int g = 0; g < group; g++) {
        float weight = scaled[g * TOKENS + scaledAt + i - from];
        addCodes(rows[i] + form.valuesAt(), form.headDim(), weight, sums, g * width);
      }
    }
  }

  private static void addRow(
      HeadOffsets at, long codes, int token, float weight, float[] sums, int sumsAt) {
    float scaled = weight * half(codes + at.valueScales(), token);
    long row = codes + at.valueCodes() + (long) token * at.headDim() / 2;
    addCodes(row, at.headDim(), scaled, sums, sumsAt);
  }

  private static void addCodes(long row, int headDim, float scaled, float[] sums, int sumsAt) {
    for (int chunk = 0; chunk < headDim; chunk += 32) {
      int pairs = Math.min(16, (headDim - chunk) / 2);
      for (int j = 0; j < pairs; j++) {
        int pair = u8(row + chunk / 2 + j);
        sums[sumsAt + chunk + j] += scaled * LEVELS.level(pair & 15);
        sums[sumsAt + chunk + 16 + j] += scaled * LEVELS.level(pair >> 4);
      }
    }
  }

  @Override
  public void addRestScores(
      GroupQuery query,
      long codes,
      float step,
      Scratch scratch,
      float[] scores,
      int at,
      int stride) {
    int headDim = query.headDim();
    for (int g = 0; g < query.group(); g++) {
      float dot = 0;
      for (int i = 0; i < headDim; i++) {
        dot += query.rotated[g * headDim + i] * rest(codes, headDim, i);
      }
      scores[at + g * stride] += dot * step;
    }
  }

  /** Dimension {@code i} of a row of what is left, in steps. */
  private static float rest(long codes, int headDim, int i) {
    int chunk = i / 32 * 32;
    int half = Math.min(32, headDim - chunk) / 2;
    int pair = u8(codes + chunk / 2 + (i - chunk) % half);
    return ((i - chunk) / half == 0 ? pair & 15 : pair >> 4) - RotLevels.REST_CENTER;
  }

  @Override
  public void addRest(
      int headDim,
      int group,
      long codes,
      float step,
      float[] weights,
      int at,
      Scratch scratch,
      float[] sums) {
    for (int g = 0; g < group; g++) {
      float weight = weights[at + g * TOKENS] * step;
      for (int i = 0; i < headDim; i++) {
        // The upper half of a last chunk of 16 lies where that of a chunk of 32 does.
        int upper = headDim - i / 32 * 32 == 16 && i % 32 >= 8 ? 8 : 0;
        sums[g * scratch.width() + i + upper] += weight * rest(codes, headDim, i);
      }
    }
  }

  @Override
  public void addMeans(
      long[] pages,
      int from,
      int to,
      int meanAt,
      int headDim,
      int group,
      float[] weights,
      int weightsAt,
      float[] sums) {
    for (int page = from; page < to; page++) {
      for (int g = 0; g < group; g++) {
        float weight = weights[weightsAt + (page - from) * group + g];
        for (int i = 0; i < headDim; i++) {
          sums[g * headDim + i] += weight * half(pages[page] + meanAt, i);
        }
      }
    }
  }

  private static float element(long row, int elementBytes, int index) {
    return elementBytes == Short.BYTES
        ? Float.intBitsToFloat(OffHeap.ALL.get(SHORT, row + 2L * index) << 16)
        : OffHeap.ALL.get(FLOAT, row + 4L * index);
  }

  @Override
  public void rowScores(
      GroupQuery query,
      long rows,
      int stride,
      int elementBytes,
      int count,
      float[] scores,
      int scoresAt,
      int scoresStride) {
    int headDim = query.headDim();
    for (int r = 0; r < count; r++) {
      for (int g = 0; g < query.group(); g++) {
        float dot = 0;
        for (int i = 0; i < headDim; i++) {
          dot += query.plain[g * headDim + i] * element(rows + (long) r * stride, elementBytes, i);
        }
        scores[g * scoresStride + scoresAt + r] = dot;
      }
    }
  }

  @Override
  public void addRows(
      long rows,
      int stride,
      int elementBytes,
      int count,
      int group,
      int headDim,
      float[] weights,
      int weightsAt,
      int weightsStride,
      float[] sums) {
    for (int r = 0; r < count; r++) {
      for (int g = 0; g < group; g++) {
        float weight = weights[g * weightsStride + weightsAt + r];
        for (int i = 0; i < headDim; i++) {
          sums[g * headDim + i] += weight * element(rows + (long) r * stride, elementBytes, i);
        }
      }
    }
  }

  @Override
  public int candidates(
      long weights,
      int stride,
      int group,
      float[] shares,
      int sharesAt,
      float floor,
      int position,
      int[] positions,
      float[] masses,
      int count) {
    int n = count;
    for (int t = 0; t < TOKENS; t++) {
      float mass = 0;
      for (int g = 0; g < group; g++) {
        short weight = OffHeap.ALL.get(SHORT, weights + 2L * (g * stride + t));
        mass += RawRows.ofBf16(weight) * shares[sharesAt + g];
      }
      if (mass >= floor) {
        positions[n] = position + t;
        masses[n++] = mass;
      }
    }
    return n;
  }
}
