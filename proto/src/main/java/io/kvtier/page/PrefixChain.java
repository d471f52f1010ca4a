package io.kvtier.page;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;

/**
 * Names of a prompt's pages that follow from its tokens: the hash of a page is taken over the hash
 * of the page before and the page's token ids, and the first over the tenant and the model
 * (FORMAT.md, "Prefix hashes"). Equal hashes mean equal tokens from the first on, of one tenant and
 * one model. Immutable.
 */
public final class PrefixChain {
  /** Bytes of one page's hash. */
  public static final int HASH_LENGTH = 16;

  /** A chain without pages. */
  public static final PrefixChain EMPTY = new PrefixChain(new long[0]);

  private static final byte[] SALT = "kvtier prefix 1".getBytes(StandardCharsets.US_ASCII);

  /** Two a page, the high half first. */
  private final long[] words;

  private PrefixChain(long[] words) {
    this.words = words;
  }

  /**
   * The chain of a prompt's whole pages; tokens behind the last whole page do not count.
   *
   * @param tenant whose sessions share pages
   * @param model the fingerprint of its weights
   * @param tokenIds from the prompt's first token on
   */
  public static PrefixChain of(String tenant, Fingerprint model, int[] tokenIds) {
    int pages = tokenIds.length / PageLayout.TOKENS;
    long[] words = new long[2 * pages];
    MessageDigest sha256 = sha256();
    byte[] name = tenant.getBytes(StandardCharsets.UTF_8);
    sha256.update(SALT);
    sha256.update(model.toBytes());
    byte[] hash = sha256.digest(name);
    ByteBuffer ids =
        ByteBuffer.allocate(PageLayout.TOKENS * Integer.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    for (int page = 0; page < pages; page++) {
      ids.clear();
      ids.asIntBuffer().put(tokenIds, page * PageLayout.TOKENS, PageLayout.TOKENS);
      sha256.update(hash);
      hash = sha256.digest(ids.array());
      ByteBuffer first = ByteBuffer.wrap(hash);
      words[2 * page] = first.getLong();
      words[2 * page + 1] = first.getLong();
    }
    return new PrefixChain(words);
  }

  /**
   * Reads a chain from the wire.
   *
   * @throws KvtierException INVALID if the bytes are not whole hashes
   */
  public static PrefixChain of(ByteString hashes) {
    if (hashes.size() % HASH_LENGTH != 0) {
      throw KvtierException.invalid(
          "prefix_hashes has %d bytes; it must have a multiple of %d", hashes.size(), HASH_LENGTH);
    }
    long[] words = new long[hashes.size() / Long.BYTES];
    hashes.asReadOnlyByteBuffer().asLongBuffer().get(words);
    return new PrefixChain(words);
  }

  private static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java platform has SHA-256", e);
    }
  }

  public int pages() {
    return words.length / 2;
  }

  /** The first eight bytes of a page's hash, big-endian. */
  public long high(int page) {
    return words[2 * page];
  }

  /** The other eight bytes of a page's hash, big-endian. */
  public long low(int page) {
    return words[2 * page + 1];
  }

  /** The chain of the first pages. */
  public PrefixChain first(int pages) {
    return pages == pages() ? this : new PrefixChain(Arrays.copyOf(words, 2 * pages));
  }

  /** All hashes in order. */
  public ByteString toByteString() {
    ByteBuffer bytes = ByteBuffer.allocate(words.length * Long.BYTES);
    bytes.asLongBuffer().put(words);
    return ByteString.copyFrom(bytes);
  }
}
