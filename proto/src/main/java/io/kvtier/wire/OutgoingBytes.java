package io.kvtier.wire;

import io.kvtier.v1.Miss;
import java.util.ArrayList;
import java.util.List;
import org.agrona.DirectBuffer;

/**
 * A message to be sent that refers to page bytes where they lie. gRPC copies them into the
 * transport's own buffer while {@code onNext} runs, on its thread; so they must stay valid and
 * unchanged until it returns, and no longer. One thread at a time.
 */
public final class OutgoingBytes {
  private static final int VARINT_BYTES_MAX = 5;

  private static final int GET_INDEX = 1;
  private static final int GET_MISS = 2;
  private static final int GET_PAGE = 3;
  private static final int SECTIONS_PAGES = 1;
  private static final int SECTION_INDEX = 1;
  private static final int SECTION_MISS = 2;
  private static final int SECTION_DATA = 3;
  private static final int SECTION_LENGTHS = 4;
  private static final int SECTION_CHECKSUMS = 5;

  /** Some fields, then {@code length} bytes of the buffer. */
  record Piece(byte[] head, int headLength, DirectBuffer bytes, int offset, int length) {}

  private final List<Piece> pieces = new ArrayList<>();
  private int length;

  private OutgoingBytes() {}

  /** A GetResponse with a page. */
  public static OutgoingBytes page(int index, DirectBuffer page, int offset, int length) {
    OutgoingBytes message = new OutgoingBytes();
    Fields fields = new Fields(4 * VARINT_BYTES_MAX);
    fields.uint32(GET_INDEX, index);
    fields.bytesHead(GET_PAGE, length);
    message.add(fields, page, offset, length);
    return message;
  }

  /** A GetResponse without a page. */
  public static OutgoingBytes miss(int index, Miss reason) {
    OutgoingBytes message = new OutgoingBytes();
    Fields fields = new Fields(4 * VARINT_BYTES_MAX);
    fields.uint32(GET_INDEX, index);
    fields.uint32(GET_MISS, reason.getNumber());
    message.add(fields, EMPTY, 0, 0);
    return message;
  }

  private static final DirectBuffer EMPTY = new org.agrona.concurrent.UnsafeBuffer(new byte[0]);

  /** A GetSectionsResponse, to which pages are added. */
  public static OutgoingBytes sections() {
    return new OutgoingBytes();
  }

  /**
   * Adds a page's sections to a GetSectionsResponse.
   *
   * @param lengths of each section asked
   * @param checksums of every section of the data, in its order
   */
  public void addSections(
      int index, int[] lengths, int[] checksums, DirectBuffer data, int offset, int dataLength) {
    Fields inner =
        new Fields(
            8 * VARINT_BYTES_MAX
                + lengths.length * VARINT_BYTES_MAX
                + checksums.length * Integer.BYTES);
    inner.uint32(SECTION_INDEX, index);
    inner.packedUint32(SECTION_LENGTHS, lengths);
    inner.packedFixed32(SECTION_CHECKSUMS, checksums);
    inner.bytesHead(SECTION_DATA, dataLength);
    addMember(inner, data, offset, dataLength);
  }

  /** Adds a page that is not served to a GetSectionsResponse. */
  public void addMiss(int index, Miss reason) {
    Fields inner = new Fields(4 * VARINT_BYTES_MAX);
    inner.uint32(SECTION_INDEX, index);
    inner.uint32(SECTION_MISS, reason.getNumber());
    addMember(inner, EMPTY, 0, 0);
  }

  private void addMember(Fields inner, DirectBuffer data, int offset, int dataLength) {
    Fields outer = new Fields(2 * VARINT_BYTES_MAX + inner.length());
    outer.bytesHead(SECTIONS_PAGES, inner.length() + dataLength);
    outer.append(inner);
    add(outer, data, offset, dataLength);
  }

  private void add(Fields fields, DirectBuffer bytes, int offset, int byteLength) {
    pieces.add(new Piece(fields.array(), fields.length(), bytes, offset, byteLength));
    length = Math.addExact(length, fields.length() + byteLength);
  }

  List<Piece> pieces() {
    return pieces;
  }

  /** Bytes of the message on the wire. */
  public int length() {
    return length;
  }
}
