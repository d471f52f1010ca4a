package io.kvtier.page;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;

/**
 * The header of a page, read and written in place. Little-endian; FORMAT.md is normative.
 *
 * <pre>
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +---------------------------------------------------------------+
 *  0|                         Magic "KVPG"                          |
 *   +-------------------------------+---------------+---------------+
 *  4|            Version            |   Key codec   |  Value codec  |
 *   +-------------------------------+---------------+---------------+
 *  8|                         Header length                         |
 *   +---------------------------------------------------------------+
 * 12|                          Page length                          |
 *   +-------------------------------+-------------------------------+
 * 16|             Layer             |           KV heads            |
 *   +-------------------------------+-------------------------------+
 * 20|           Head dim            |            Tokens             |
 *   +-------------------------------+-------------------------------+
 * 24|                        First position                         |
 *   +---------------------------------------------------------------+
 * 28|                          Reserved, 0                          |
 *   +---------------------------------------------------------------+
 * 32|                      Model fingerprint                        |
 *   |                          (16 bytes)                           |
 *   +---------------------------------------------------------------+
 * 48|                   Reserved, 0 (12 bytes)                      |
 *   +---------------------------------------------------------------+
 * 60|                       Header checksum                         |
 *   +---------------------------------------------------------------+
 * 64|  Section table: per KV head, per section in order of its id:  |
 *   |          offset (4), length (4), checksum (4)              ...
 * </pre>
 */
public final class PageHeaderFlyweight {
  /** "KVPG" in the order of the bytes. */
  public static final int MAGIC = 0x4750_564B;

  public static final int VERSION = 2;

  public static final int FINGERPRINT_LENGTH = 16;

  static final int MAGIC_OFFSET = 0;
  static final int VERSION_OFFSET = MAGIC_OFFSET + Integer.BYTES;
  static final int KEY_CODEC_OFFSET = VERSION_OFFSET + Short.BYTES;
  static final int VALUE_CODEC_OFFSET = KEY_CODEC_OFFSET + Byte.BYTES;
  static final int HEADER_LENGTH_OFFSET = VALUE_CODEC_OFFSET + Byte.BYTES;
  static final int PAGE_LENGTH_OFFSET = HEADER_LENGTH_OFFSET + Integer.BYTES;
  static final int LAYER_OFFSET = PAGE_LENGTH_OFFSET + Integer.BYTES;
  static final int KV_HEADS_OFFSET = LAYER_OFFSET + Short.BYTES;
  static final int HEAD_DIM_OFFSET = KV_HEADS_OFFSET + Short.BYTES;
  static final int TOKENS_OFFSET = HEAD_DIM_OFFSET + Short.BYTES;
  static final int FIRST_POSITION_OFFSET = TOKENS_OFFSET + Short.BYTES;
  static final int RESERVED_OFFSET = FIRST_POSITION_OFFSET + Integer.BYTES;
  static final int FINGERPRINT_OFFSET = RESERVED_OFFSET + Integer.BYTES;
  static final int RESERVED2_OFFSET = FINGERPRINT_OFFSET + FINGERPRINT_LENGTH;
  static final int CHECKSUM_OFFSET = RESERVED2_OFFSET + 12;

  /** Bytes before the section table. */
  public static final int TABLE_OFFSET = CHECKSUM_OFFSET + Integer.BYTES;

  static final int ENTRY_OFFSET_OFFSET = 0;
  static final int ENTRY_LENGTH_OFFSET = ENTRY_OFFSET_OFFSET + Integer.BYTES;
  static final int ENTRY_CHECKSUM_OFFSET = ENTRY_LENGTH_OFFSET + Integer.BYTES;

  /** Bytes of one entry of the section table. */
  public static final int ENTRY_LENGTH = ENTRY_CHECKSUM_OFFSET + Integer.BYTES;

  private PageHeaderFlyweight() {}

  public static int magic(DirectBuffer page, int offset) {
    return page.getInt(offset + MAGIC_OFFSET, LITTLE_ENDIAN);
  }

  public static int version(DirectBuffer page, int offset) {
    return u16(page, offset + VERSION_OFFSET);
  }

  public static int keyCodec(DirectBuffer page, int offset) {
    return page.getByte(offset + KEY_CODEC_OFFSET) & 0xFF;
  }

  public static int valueCodec(DirectBuffer page, int offset) {
    return page.getByte(offset + VALUE_CODEC_OFFSET) & 0xFF;
  }

  public static int headerLength(DirectBuffer page, int offset) {
    return page.getInt(offset + HEADER_LENGTH_OFFSET, LITTLE_ENDIAN);
  }

  public static int pageLength(DirectBuffer page, int offset) {
    return page.getInt(offset + PAGE_LENGTH_OFFSET, LITTLE_ENDIAN);
  }

  public static int layer(DirectBuffer page, int offset) {
    return u16(page, offset + LAYER_OFFSET);
  }

  public static int kvHeads(DirectBuffer page, int offset) {
    return u16(page, offset + KV_HEADS_OFFSET);
  }

  public static int headDim(DirectBuffer page, int offset) {
    return u16(page, offset + HEAD_DIM_OFFSET);
  }

  /** Tokens in the page, 1..64. */
  public static int tokens(DirectBuffer page, int offset) {
    return u16(page, offset + TOKENS_OFFSET);
  }

  /** Position of the page's first token. */
  public static int firstPosition(DirectBuffer page, int offset) {
    return page.getInt(offset + FIRST_POSITION_OFFSET, LITTLE_ENDIAN);
  }

  public static void fingerprint(DirectBuffer page, int offset, byte[] destination) {
    page.getBytes(offset + FINGERPRINT_OFFSET, destination, 0, FINGERPRINT_LENGTH);
  }

  public static int checksum(DirectBuffer page, int offset) {
    return page.getInt(offset + CHECKSUM_OFFSET, LITTLE_ENDIAN);
  }

  /** Byte offset, from the page's first byte, of the section of a table entry. */
  public static int sectionOffset(DirectBuffer page, int offset, int entry) {
    return page.getInt(entryAt(offset, entry) + ENTRY_OFFSET_OFFSET, LITTLE_ENDIAN);
  }

  public static int sectionLength(DirectBuffer page, int offset, int entry) {
    return page.getInt(entryAt(offset, entry) + ENTRY_LENGTH_OFFSET, LITTLE_ENDIAN);
  }

  public static int sectionChecksum(DirectBuffer page, int offset, int entry) {
    return page.getInt(entryAt(offset, entry) + ENTRY_CHECKSUM_OFFSET, LITTLE_ENDIAN);
  }

  /** Writes all fields but the checksums and the table. */
  static void write(
      MutableDirectBuffer page, int offset, PageLayout layout, PageIdentity identity) {
    page.setMemory(offset, layout.headerLength(), (byte) 0);
    page.putInt(offset + MAGIC_OFFSET, MAGIC, LITTLE_ENDIAN);
    page.putShort(offset + VERSION_OFFSET, (short) VERSION, LITTLE_ENDIAN);
    page.putByte(offset + KEY_CODEC_OFFSET, (byte) layout.keyCodec().id());
    page.putByte(offset + VALUE_CODEC_OFFSET, (byte) layout.valueCodec().id());
    page.putInt(offset + HEADER_LENGTH_OFFSET, layout.headerLength(), LITTLE_ENDIAN);
    page.putInt(offset + PAGE_LENGTH_OFFSET, layout.pageLength(), LITTLE_ENDIAN);
    page.putShort(offset + LAYER_OFFSET, (short) identity.layer(), LITTLE_ENDIAN);
    page.putShort(offset + KV_HEADS_OFFSET, (short) layout.kvHeads(), LITTLE_ENDIAN);
    page.putShort(offset + HEAD_DIM_OFFSET, (short) layout.headDim(), LITTLE_ENDIAN);
    page.putShort(offset + TOKENS_OFFSET, (short) identity.tokens(), LITTLE_ENDIAN);
    page.putInt(offset + FIRST_POSITION_OFFSET, identity.firstPosition(), LITTLE_ENDIAN);
    page.putBytes(offset + FINGERPRINT_OFFSET, identity.fingerprint().toBytes());
  }

  static void writeEntry(
      MutableDirectBuffer page, int offset, int entry, int at, int length, int checksum) {
    int e = entryAt(offset, entry);
    page.putInt(e + ENTRY_OFFSET_OFFSET, at, LITTLE_ENDIAN);
    page.putInt(e + ENTRY_LENGTH_OFFSET, length, LITTLE_ENDIAN);
    page.putInt(e + ENTRY_CHECKSUM_OFFSET, checksum, LITTLE_ENDIAN);
  }

  static void writeChecksum(MutableDirectBuffer page, int offset, int checksum) {
    page.putInt(offset + CHECKSUM_OFFSET, checksum, LITTLE_ENDIAN);
  }

  private static int entryAt(int offset, int entry) {
    return offset + TABLE_OFFSET + entry * ENTRY_LENGTH;
  }

  private static int u16(DirectBuffer page, int at) {
    return page.getShort(at, LITTLE_ENDIAN) & 0xFFFF;
  }
}
