package io.kvtier.codec;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.kvtier.KvtierException;
import io.kvtier.page.Codec;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.page.Section;
import org.agrona.MutableDirectBuffer;

/**
 * Encodes pages, in scalar code that defines the format. Holds scratch for one page: one instance
 * serves one thread at a time. Equal input gives equal bytes.
 */
public final class PageEncoder {
  private final PageLayout layout;
  private final Rotation rotation;
  private final float[] mean;
  private final float[] rest;
  private final byte[] codes;

  public PageEncoder(PageLayout layout) {
    this.layout = layout;
    this.rotation = new Rotation(layout.headDim());
    this.mean = new float[layout.headDim()];
    this.rest = new float[layout.headDim()];
    this.codes = new byte[layout.headDim()];
  }

  /**
   * Writes a whole sealed page.
   *
   * @param keys {@code [tokens][kvHeads][headDim]}, finite, at most 4096 in magnitude; read only
   * @param values same shape and bounds; read only
   * @param page receives {@code layout.pageLength()} bytes from {@code offset} on
   * @throws KvtierException INVALID if an element is NaN, infinite or too large, with its place;
   *     nothing useful is in the page then
   */
  public void encode(
      PageIdentity identity, float[] keys, float[] values, MutableDirectBuffer page, int offset) {
    requireCodable("keys", keys, identity.tokens());
    requireCodable("values", values, identity.tokens());
    page.setMemory(offset, layout.pageLength(), (byte) 0);
    for (int head = 0; head < layout.kvHeads(); head++) {
      if (layout.keyCodec() == Codec.ROT4) {
        encodeRot4Keys(identity.tokens(), keys, head, page, offset);
      } else {
        encodeRaw(identity.tokens(), keys, head, page, offset + layout.offset(head, Section.K_RAW));
      }
      if (layout.valueCodec() == Codec.ROT4) {
        encodeRot4Values(identity.tokens(), values, head, page, offset);
      } else {
        encodeRaw(
            identity.tokens(), values, head, page, offset + layout.offset(head, Section.V_RAW));
      }
    }
    Pages.seal(page, offset, layout, identity);
  }

  private void requireCodable(String name, float[] rows, int tokens) {
    int rowLength = layout.kvHeads() * layout.headDim();
    if (rows.length < tokens * rowLength) {
      throw KvtierException.invalid(
          "%s has %d elements; %d tokens need %d", name, rows.length, tokens, tokens * rowLength);
    }
    for (int i = 0; i < tokens * rowLength; i++) {
      if (!(Math.abs(rows[i]) <= RawRows.MAGNITUDE_MAX)) {
        throw KvtierException.invalid(
            "%s[token %d][head %d][%d] is %s; it must be finite and at most %s in magnitude",
            name,
            i / rowLength,
            i % rowLength / layout.headDim(),
            i % layout.headDim(),
            rows[i],
            RawRows.MAGNITUDE_MAX);
      }
    }
  }

  private int rowAt(int token, int head) {
    return (token * layout.kvHeads() + head) * layout.headDim();
  }

  private void encodeRaw(int tokens, float[] rows, int head, MutableDirectBuffer page, int at) {
    int headDim = layout.headDim();
    for (int t = 0; t < tokens; t++) {
      RawRows.put(page, at + t * headDim * Short.BYTES, rows, rowAt(t, head), headDim);
    }
  }

  private void encodeRot4Keys(
      int tokens, float[] keys, int head, MutableDirectBuffer page, int offset) {
    int headDim = layout.headDim();
    int signAt = offset + layout.offset(head, Section.K_SIGN);
    int coarseAt = offset + layout.offset(head, Section.K_COARSE);
    int fineAt = offset + layout.offset(head, Section.K_FINE);
    int scalesAt = offset + layout.offset(head, Section.K_SCALES);
    putMean(tokens, keys, head, page, offset + layout.offset(head, Section.K_MEAN));
    for (int t = 0; t < tokens; t++) {
      short scale = quantizeRest(keys, rowAt(t, head));
      page.putShort(scalesAt + t * Short.BYTES, scale, LITTLE_ENDIAN);
      Rot4.putKeyCodes(page, signAt, coarseAt, fineAt, t, codes, headDim);
    }
  }

  private void encodeRot4Values(
      int tokens, float[] values, int head, MutableDirectBuffer page, int offset) {
    int rowLength = layout.headDim() / 2;
    int codesAt = offset + layout.offset(head, Section.V_CODES);
    int scalesAt = offset + layout.offset(head, Section.V_SCALES);
    putMean(tokens, values, head, page, offset + layout.offset(head, Section.V_MEAN));
    for (int t = 0; t < tokens; t++) {
      short scale = quantizeRest(values, rowAt(t, head));
      page.putShort(scalesAt + t * Short.BYTES, scale, LITTLE_ENDIAN);
      for (int i = 0; i < rowLength; i++) {
        page.putByte(codesAt + t * rowLength + i, (byte) (codes[2 * i] | codes[2 * i + 1] << 4));
      }
    }
  }

  /**
   * Stores the page's mean in fp16 and keeps it as stored, so that its rounding ends up in the
   * codes, not in the error.
   */
  private void putMean(int tokens, float[] rows, int head, MutableDirectBuffer page, int at) {
    for (int i = 0; i < layout.headDim(); i++) {
      float sum = 0;
      for (int t = 0; t < tokens; t++) {
        sum += rows[rowAt(t, head) + i];
      }
      short half = Float.floatToFloat16(sum / tokens);
      page.putShort(at + i * Short.BYTES, half, LITTLE_ENDIAN);
      mean[i] = Float.float16ToFloat(half);
    }
  }

  private short quantizeRest(float[] rows, int at) {
    for (int i = 0; i < layout.headDim(); i++) {
      rest[i] = rows[at + i] - mean[i];
    }
    rotation.apply(rest, 0);
    return Rot4.quantize(rest, 0, layout.headDim(), codes);
  }
}
