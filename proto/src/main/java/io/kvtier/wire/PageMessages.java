package io.kvtier.wire;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.kvtier.v1.Miss;
import io.kvtier.wire.IncomingBytes.Located;
import java.util.Arrays;
import java.util.function.Consumer;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.jspecify.annotations.Nullable;

/**
 * The received messages of the Pages service that carry page bytes. The bytes are where the message
 * has them in one piece, or else copied once to the start of a {@link Staging}; more than that
 * takes are passed over, and the length tells.
 */
public final class PageMessages {
  private static final int[] NONE = {};
  private static final int SHORT_BYTES_MAX = 4 << 10;
  private static final Located NOWHERE = new Located(new UnsafeBuffer(new byte[0]), 0);

  private PageMessages() {}

  /**
   * A PutRequest.
   *
   * @param key as it came, of any length
   * @param bytes the page's, valid as long as the message
   */
  public record Put(ByteString key, DirectBuffer bytes, int offset, int length) {}

  /**
   * A GetResponse, or a page of a GetSectionsResponse or a GetRowsResponse.
   *
   * @param bytes valid as long as the message, and until its next page is read
   * @param lengths of the sections asked; empty for a whole page, and for rows
   * @param checksums of the sections, or one of all rows; empty for a whole page
   */
  public record Answer(
      int index,
      Miss miss,
      DirectBuffer bytes,
      int offset,
      int length,
      int[] lengths,
      int[] checksums) {}

  /** A google.rpc.Status without its details. */
  public record Refusal(int code, String message) {}

  /** Reads a google.rpc.Status. */
  public static Refusal readRefusal(IncomingBytes in) {
    int code = 0;
    String message = "";
    for (int tag = in.tag(); tag != 0; tag = in.tag()) {
      if (IncomingBytes.isVarint(tag, 1)) {
        code = (int) in.varint();
      } else if (IncomingBytes.isBytes(tag, 2)) {
        message = shortBytes(in).toStringUtf8();
      } else {
        in.skip(tag);
      }
    }
    return new Refusal(code, message);
  }

  /** Reads a PutRequest. */
  public static Put readPut(IncomingBytes in, Staging staging) {
    ByteString key = ByteString.EMPTY;
    Located page = NOWHERE;
    int length = 0;
    for (int tag = in.tag(); tag != 0; tag = in.tag()) {
      if (IncomingBytes.isBytes(tag, 1)) {
        key = shortBytes(in);
      } else if (IncomingBytes.isBytes(tag, 2)) {
        length = in.bytesLength();
        page = bytes(in, length, staging);
      } else {
        in.skip(tag);
      }
    }
    return new Put(key, page.buffer(), page.offset(), length);
  }

  private static ByteString shortBytes(IncomingBytes in) {
    int length = in.bytesLength();
    byte[] bytes = new byte[Math.min(length, SHORT_BYTES_MAX)];
    for (int i = 0; i < bytes.length; i++) {
      bytes[i] = in.int8();
    }
    in.skipRest(length - bytes.length);
    return UnsafeByteOperations.unsafeWrap(bytes);
  }

  private static Located bytes(IncomingBytes in, int length, Staging staging) {
    if (length > staging.bytesMax()) {
      in.skipRest(length);
      return NOWHERE;
    }
    return in.take(length, staging);
  }

  /** Reads a GetResponse. */
  public static Answer readGet(IncomingBytes in, Staging staging) {
    int index = 0;
    int miss = 0;
    Located page = NOWHERE;
    int length = 0;
    for (int tag = in.tag(); tag != 0; tag = in.tag()) {
      if (IncomingBytes.isVarint(tag, 1)) {
        index = (int) in.varint();
      } else if (IncomingBytes.isVarint(tag, 2)) {
        miss = (int) in.varint();
      } else if (IncomingBytes.isBytes(tag, 3)) {
        length = in.bytesLength();
        page = bytes(in, length, staging);
      } else {
        in.skip(tag);
      }
    }
    return new Answer(index, miss(miss), page.buffer(), page.offset(), length, NONE, NONE);
  }

  /** Reads a GetSectionsResponse, page by page; each page's bytes take the place of the last's. */
  public static void readSections(IncomingBytes in, Staging staging, Consumer<Answer> consumer) {
    for (int tag = in.tag(); tag != 0; tag = in.tag()) {
      if (IncomingBytes.isBytes(tag, 1)) {
        int length = in.bytesLength();
        consumer.accept(sections(in, in.left() - length, staging));
      } else {
        in.skip(tag);
      }
    }
  }

  private static Answer sections(IncomingBytes in, int leftAfter, Staging staging) {
    int index = 0;
    int miss = 0;
    Located data = NOWHERE;
    int length = 0;
    int[] lengths = NONE;
    int[] checksums = NONE;
    while (in.left() > leftAfter) {
      int tag = in.tag();
      if (IncomingBytes.isVarint(tag, 1)) {
        index = (int) in.varint();
      } else if (IncomingBytes.isVarint(tag, 2)) {
        miss = (int) in.varint();
      } else if (IncomingBytes.isBytes(tag, 3)) {
        length = in.bytesLength();
        data = bytes(in, length, staging);
      } else if (IncomingBytes.isBytes(tag, 4)) {
        lengths = varints(in);
      } else if (IncomingBytes.isBytes(tag, 5)) {
        checksums = fixed32s(in);
      } else {
        in.skip(tag);
      }
    }
    return new Answer(index, miss(miss), data.buffer(), data.offset(), length, lengths, checksums);
  }

  /** Reads a GetRowsResponse, page by page; each page's bytes take the place of the last's. */
  public static void readRows(IncomingBytes in, Staging staging, Consumer<Answer> consumer) {
    for (int tag = in.tag(); tag != 0; tag = in.tag()) {
      if (IncomingBytes.isBytes(tag, 1)) {
        int length = in.bytesLength();
        consumer.accept(rows(in, in.left() - length, staging));
      } else {
        in.skip(tag);
      }
    }
  }

  private static Answer rows(IncomingBytes in, int leftAfter, Staging staging) {
    int index = 0;
    int miss = 0;
    Located data = NOWHERE;
    int length = 0;
    int checksum = 0;
    while (in.left() > leftAfter) {
      int tag = in.tag();
      if (IncomingBytes.isVarint(tag, 1)) {
        index = (int) in.varint();
      } else if (IncomingBytes.isVarint(tag, 2)) {
        miss = (int) in.varint();
      } else if (IncomingBytes.isBytes(tag, 3)) {
        length = in.bytesLength();
        data = bytes(in, length, staging);
      } else if (IncomingBytes.isFixed32(tag, 4)) {
        checksum = in.fixed32();
      } else {
        in.skip(tag);
      }
    }
    int[] checksums = {checksum};
    return new Answer(index, miss(miss), data.buffer(), data.offset(), length, NONE, checksums);
  }

  private static int[] varints(IncomingBytes in) {
    int bytes = in.bytesLength();
    int leftAfter = in.left() - bytes;
    int[] values = new int[Math.min(bytes, 64)];
    int count = 0;
    while (in.left() > leftAfter) {
      if (count == values.length) {
        values = Arrays.copyOf(values, 2 * count);
      }
      values[count++] = (int) in.varint();
    }
    return Arrays.copyOf(values, count);
  }

  private static int[] fixed32s(IncomingBytes in) {
    int[] values = new int[in.bytesLength() / Integer.BYTES];
    for (int i = 0; i < values.length; i++) {
      values[i] = in.fixed32();
    }
    return values;
  }

  private static Miss miss(int number) {
    @Nullable Miss miss = Miss.forNumber(number);
    return miss == null ? Miss.UNRECOGNIZED : miss;
  }
}
