package io.kvtier.wire;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.kvtier.page.PageKey;
import io.kvtier.v1.Miss;
import java.util.ArrayList;
import java.util.List;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A message to be sent that refers to page bytes where they lie. gRPC copies them into the
 * transport's own buffer while {@code onNext} runs, on its thread; so they must stay valid and
 * unchanged until it returns, and no longer. One thread at a time.
 */
public final class OutgoingBytes {
  private static final int VARINT_BYTES_MAX = 5;

  private static final int PUT_KEY = 1;
  private static final int PUT_PAGE = 2;
  private static final int REFUSAL_CODE = 1;
  private static final int REFUSAL_MESSAGE = 2;
  private static final int GET_INDEX = 1;
  private static final int GET_MISS = 2;
  private static final int GET_PAGE = 3;
  private static final int SECTIONS_PAGES = 1;
  private static final int SECTION_INDEX = 1;
  private static final int SECTION_MISS = 2;
  private static final int SECTION_DATA = 3;
  private static final int SECTION_LENGTHS = 4;
  private static final int SECTION_CHECKSUMS = 5;

  private static final DirectBuffer EMPTY = new UnsafeBuffer(new byte[0]);

  /** Some fields, then {@code length} bytes of the buffer. */
  record Piece(byte[] head, int headLength, DirectBuffer bytes, int offset, int length) {}

  private final List<Piece> pieces = new ArrayList<>();
  private int length;

  private OutgoingBytes() {}

  /** A message that has been written already. */
  public static OutgoingBytes whole(byte[] bytes) {
    OutgoingBytes message = new OutgoingBytes();
    message.pieces.add(new Piece(bytes, bytes.length, EMPTY, 0, 0));
    message.length = bytes.length;
    return message;
  }

  /** A message that has been written already and lies in the buffer. */
  public static OutgoingBytes written(DirectBuffer buffer, int offset, int length) {
    OutgoingBytes message = new OutgoingBytes();
    message.add(new Fields(0), buffer, offset, length);
    return message;
  }

  /** A google.rpc.Status without details. */
  public static OutgoingBytes refusal(int code, String text) {
    byte[] utf8 = text.getBytes(UTF_8);
    Fields fields = new Fields(4 * VARINT_BYTES_MAX);
    fields.uint32(REFUSAL_CODE, code);
    fields.bytesHead(REFUSAL_MESSAGE, utf8.length);
    OutgoingBytes message = new OutgoingBytes();
    message.add(fields, new UnsafeBuffer(utf8), 0, utf8.length);
    return message;
  }

  /** A PutRequest of a whole buffer. */
  public static OutgoingBytes put(PageKey key, DirectBuffer page) {
    Fields fields = new Fields(4 * VARINT_BYTES_MAX + PageKey.LENGTH);
    fields.bytesHead(PUT_KEY, PageKey.LENGTH);
    fields.raw(key.toBytes());
    fields.bytesHead(PUT_PAGE, page.capacity());
    OutgoingBytes message = new OutgoingBytes();
    message.add(fields, page, 0, page.capacity());
    return message;
  }

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
