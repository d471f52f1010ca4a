package io.kvtier.page;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HexFormat;
import java.util.UUID;

/**
 * The 32 bytes that name a page for ever (FORMAT.md, "Page keys"), as four words in the order of
 * the bytes, most significant first.
 *
 * <pre>
 *   bytes  0..15  session id, or prefix hash ({@link PrefixChain})
 *         16..19  page index in the session, or the page's header checksum; big-endian
 *         20..25  first 6 bytes of the model fingerprint
 *         26..27  layer, big-endian
 *         28      key codec
 *         29      value codec
 *         30      kind: 1, a page of a session; 2, a page of a prefix
 *         31      0
 * </pre>
 */
public record PageKey(long w0, long w1, long w2, long w3) {
  public static final int LENGTH = 32;

  private static final int KIND_SESSION = 1;
  private static final int KIND_PREFIX = 2;

  /** The key of a page that belongs to one session. */
  public static PageKey ofSession(
      UUID session, int pageIndex, Fingerprint fingerprint, int layer, PageLayout layout) {
    return of(
        session.getMostSignificantBits(),
        session.getLeastSignificantBits(),
        pageIndex,
        fingerprint,
        layer,
        layout,
        KIND_SESSION);
  }

  /**
   * The key of a page that all sessions with one prefix share. It names the page's bytes too: two
   * engines that compute slightly different keys and values for the same tokens make two pages, and
   * parts of one are never read with parts of the other.
   *
   * @param pageIndex page of the chain
   * @param headerChecksum of the sealed page: its header holds the checksums of all sections
   */
  public static PageKey ofPrefix(
      PrefixChain chain,
      int pageIndex,
      int headerChecksum,
      Fingerprint fingerprint,
      int layer,
      PageLayout layout) {
    return of(
        chain.high(pageIndex),
        chain.low(pageIndex),
        headerChecksum,
        fingerprint,
        layer,
        layout,
        KIND_PREFIX);
  }

  private static PageKey of(
      long w0,
      long w1,
      int number,
      Fingerprint fingerprint,
      int layer,
      PageLayout layout,
      int kind) {
    return new PageKey(
        w0,
        w1,
        (long) number << 32 | fingerprint.high() >>> 32,
        (fingerprint.high() >>> 16 & 0xFFFF) << 48
            | (long) layer << 32
            | (long) layout.keyCodec().id() << 24
            | (long) layout.valueCodec().id() << 16
            | kind << 8);
  }

  /**
   * Reads a key from the wire.
   *
   * @throws KvtierException INVALID if the bytes are not a page key
   */
  public static PageKey of(ByteString bytes) {
    if (bytes.size() != LENGTH) {
      throw KvtierException.invalid("page key has %d bytes; it must have %d", bytes.size(), LENGTH);
    }
    return of(bytes.asReadOnlyByteBuffer().order(ByteOrder.BIG_ENDIAN), 0);
  }

  /**
   * Reads the key that lies at an index of a big-endian buffer.
   *
   * @throws KvtierException INVALID if the bytes are not a page key
   */
  public static PageKey of(ByteBuffer buffer, int at) {
    PageKey key =
        new PageKey(
            buffer.getLong(at),
            buffer.getLong(at + 8),
            buffer.getLong(at + 16),
            buffer.getLong(at + 24));
    if ((key.w3 & 0xFFFF) != KIND_SESSION << 8 && !key.isOfPrefix()) {
      throw KvtierException.invalid(
          "page key %s ends in %04x; it must end in 0100 (a page of a session) or 0200 (of a"
              + " prefix)",
          key, key.w3 & 0xFFFF);
    }
    return key;
  }

  public byte[] toBytes() {
    return ByteBuffer.allocate(LENGTH).putLong(w0).putLong(w1).putLong(w2).putLong(w3).array();
  }

  /** Writes the key's bytes into a big-endian buffer. */
  public void write(ByteBuffer buffer, int at) {
    buffer.putLong(at, w0).putLong(at + 8, w1).putLong(at + 16, w2).putLong(at + 24, w3);
  }

  public ByteString toByteString() {
    return ByteString.copyFrom(toBytes());
  }

  public int layer() {
    return (int) (w3 >>> 32 & 0xFFFF);
  }

  /** Whether all sessions with one prefix share the page; else it belongs to one session. */
  public boolean isOfPrefix() {
    return (w3 & 0xFFFF) == KIND_PREFIX << 8;
  }

  /** Whether the page belongs to this session. */
  public boolean isOfSession(UUID session) {
    return !isOfPrefix()
        && w0 == session.getMostSignificantBits()
        && w1 == session.getLeastSignificantBits();
  }

  /** Of a session's page: its index in the session. */
  public int pageIndex() {
    return (int) (w2 >>> 32);
  }

  /** The key of a session's page of the same index and layer in another layout. */
  public PageKey inLayout(PageLayout layout) {
    long codecs = (layout.keyCodec().id() << 8 | layout.valueCodec().id()) * 65_536L;
    return new PageKey(w0, w1, w2, (w3 & ~0xFFFF_0000L) | codecs);
  }

  /** Of a prefix's page: the checksum of its header. */
  public int headerChecksum() {
    return (int) (w2 >>> 32);
  }

  /** The codec of the page's keys. */
  public int keyCodecId() {
    return (int) (w3 >>> 24 & 0xFF);
  }

  /** Whether a page with this header may be stored under this key. */
  boolean matches(PageIdentity identity, PageLayout layout, int checksum) {
    long fingerprint = identity.fingerprint().high();
    return (!isOfPrefix() || headerChecksum() == checksum)
        && layer() == identity.layer()
        && (w3 >>> 24 & 0xFF) == layout.keyCodec().id()
        && (w3 >>> 16 & 0xFF) == layout.valueCodec().id()
        && (w2 & 0xFFFF_FFFFL) == fingerprint >>> 32
        && w3 >>> 48 == (fingerprint >>> 16 & 0xFFFF);
  }

  @Override
  public String toString() {
    return HexFormat.of().formatHex(toBytes());
  }
}
