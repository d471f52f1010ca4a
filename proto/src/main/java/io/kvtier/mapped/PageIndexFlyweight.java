package io.kvtier.mapped;

import io.kvtier.page.PageKey;
import java.nio.ByteOrder;
import org.agrona.BitUtil;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * The file that tells where pages lie in another: one process writes it, any number on the same
 * host read it, and neither waits for the other. Little-endian.
 *
 * <pre>
 *   header   0 magic "KVPGIDX1" (8) | 8 instance (8) | 16 page length (4) | 20 slots (4) | 24 zero
 *   slot     0 version (8) | 8 offset (8) | 16 key (32) | 48 zero        64 bytes each
 * </pre>
 *
 * <ul>
 *   <li>instance: the run of the store that writes; 0 once it has ended. What a file of another
 *       instance says is not to be believed.
 *   <li>offset: of the page in the file of pages, whose name differs in its end; 0: the slot is
 *       free. The slots are a power of two; a key's is one of {@link #WINDOW} from the one that its
 *       hash says, around the end. A page whose slots are all taken is not in the index.
 *   <li>version: odd while the slot is being changed, another number after each change.
 * </ul>
 *
 * <p>The writer adds a page after its last byte has been written, and takes it out before its bytes
 * may be used for others. So a reader that finds the same even version, and its instance, before
 * and after it has looked at the bytes, has seen that key's page, whatever happened meanwhile; one
 * that finds another has to forget what it has seen. Nobody locks: a process killed at any point
 * leaves others nothing to wait for.
 */
public final class PageIndexFlyweight {
  /** How names of index files end; the pages' own files end in {@link #PAGES_SUFFIX}. */
  public static final String SUFFIX = ".index";

  public static final String PAGES_SUFFIX = ".map";
  public static final int HEADER_BYTES = 64;
  public static final int SLOT_BYTES = 64;
  public static final int INSTANCE_OFFSET = 8;

  /** Slots that a key may be in. */
  public static final int WINDOW = 16;

  /** Most slots of an index. */
  public static final int SLOTS_MAX = 1 << 20;

  private static final int SLOTS_MIN = 1 << 10;
  private static final long MAGIC = 0x3158_4449_4750_564BL;
  private static final int PAGE_LENGTH_OFFSET = 16;
  private static final int SLOTS_OFFSET = 20;
  private static final int OFFSET = 8;
  private static final int KEY = 16;

  private PageIndexFlyweight() {}

  /** Slots of an index for so many pages: half of them stay free, as far as the bound allows. */
  public static int slotsFor(long pagesMax) {
    int wanted = Math.clamp(2 * pagesMax, SLOTS_MIN, SLOTS_MAX);
    return BitUtil.findNextPositivePowerOfTwo(wanted);
  }

  /** Bytes of an index of so many slots. */
  public static int length(int slots) {
    return HEADER_BYTES + slots * SLOT_BYTES;
  }

  /** Writes the header of an index whose slots are zero. */
  public static void writeHeader(UnsafeBuffer index, int pageLength, int slots, long instance) {
    index.putLong(0, MAGIC, ByteOrder.LITTLE_ENDIAN);
    index.putInt(PAGE_LENGTH_OFFSET, pageLength, ByteOrder.LITTLE_ENDIAN);
    index.putInt(SLOTS_OFFSET, slots, ByteOrder.LITTLE_ENDIAN);
    index.putLongVolatile(INSTANCE_OFFSET, instance);
  }

  /** Whether this is an index that is whole. */
  public static boolean isIndex(UnsafeBuffer index) {
    return index.capacity() >= HEADER_BYTES
        && index.getLong(0, ByteOrder.LITTLE_ENDIAN) == MAGIC
        && slots(index) > 0
        && Integer.bitCount(slots(index)) == 1
        && index.capacity() == length(slots(index));
  }

  public static int pageLength(UnsafeBuffer index) {
    return index.getInt(PAGE_LENGTH_OFFSET, ByteOrder.LITTLE_ENDIAN);
  }

  public static int slots(UnsafeBuffer index) {
    return index.getInt(SLOTS_OFFSET, ByteOrder.LITTLE_ENDIAN);
  }

  /** The run of the store whose index this is; 0: it has ended. */
  public static long instance(UnsafeBuffer index) {
    return index.getLongVolatile(INSTANCE_OFFSET);
  }

  /** Byte offset of a key's slot of a place in its window. */
  public static int slot(PageKey key, int place, int slots) {
    long hash = mix(mix(mix(mix(0, key.w0()), key.w1()), key.w2()), key.w3());
    return HEADER_BYTES + ((int) hash + place & slots - 1) * SLOT_BYTES;
  }

  private static long mix(long hash, long word) {
    long mixed = (hash ^ word) * 0x9E37_79B9_7F4A_7C15L;
    return mixed ^ mixed >>> 32;
  }

  public static long version(UnsafeBuffer index, int slot) {
    return index.getLongVolatile(slot);
  }

  /** Offset of the slot's page; 0: free. */
  public static long offset(UnsafeBuffer index, int slot) {
    return index.getLong(slot + OFFSET, ByteOrder.LITTLE_ENDIAN);
  }

  public static boolean hasKey(UnsafeBuffer index, int slot, PageKey key) {
    return index.getLong(slot + KEY, ByteOrder.LITTLE_ENDIAN) == key.w0()
        && index.getLong(slot + KEY + 8, ByteOrder.LITTLE_ENDIAN) == key.w1()
        && index.getLong(slot + KEY + 16, ByteOrder.LITTLE_ENDIAN) == key.w2()
        && index.getLong(slot + KEY + 24, ByteOrder.LITTLE_ENDIAN) == key.w3();
  }

  /**
   * Changes a slot; one thread at a time. When this returns, every reader sees it.
   *
   * @param offset of the key's page; 0 takes it out
   */
  public static void write(UnsafeBuffer index, int slot, PageKey key, long offset) {
    long version = index.getLong(slot);
    index.putLongVolatile(slot, version + 1);
    index.putLong(slot + OFFSET, offset, ByteOrder.LITTLE_ENDIAN);
    index.putLong(slot + KEY, key.w0(), ByteOrder.LITTLE_ENDIAN);
    index.putLong(slot + KEY + 8, key.w1(), ByteOrder.LITTLE_ENDIAN);
    index.putLong(slot + KEY + 16, key.w2(), ByteOrder.LITTLE_ENDIAN);
    index.putLong(slot + KEY + 24, key.w3(), ByteOrder.LITTLE_ENDIAN);
    index.putLongVolatile(slot, version + 2);
  }
}
