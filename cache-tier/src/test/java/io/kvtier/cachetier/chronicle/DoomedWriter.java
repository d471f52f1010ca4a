package io.kvtier.cachetier.chronicle;

import static io.kvtier.cachetier.TestPages.key;
import static io.kvtier.cachetier.TestPages.page;

import io.kvtier.cachetier.ForwardingPageStore;
import io.kvtier.cachetier.PageReader;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.cache.CacheLimits;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import java.io.IOException;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A process that puts and deletes pages on two threads until it is killed, more of them than its
 * cache holds, so that it evicts all the time as well. It notes the state of every page, before and
 * after each step, in a mapped file, which survives the process as the store's files do. Prints a
 * line now and then.
 */
final class DoomedWriter {
  static final long BYTES_MAX = 16 << 20;
  static final int INDEX_MAX = 1 << 22;

  static final byte UNTOUCHED = 0;
  static final byte PUT_BEGUN = 1;
  static final byte STORED = 2;
  static final byte DELETE_BEGUN = 3;
  static final byte DELETED = 4;

  private static final int THREADS = 2;
  private static final int LIVE_PER_THREAD = 420;
  private static final int STEPS_PER_LINE = 32;
  private static final PageLayout[] LAYOUTS = {
    TestPages.ROT4, TestPages.raw16(1, 32), TestPages.raw16(4, 64)
  };

  private DoomedWriter() {}

  static PageKey keyOf(int index) {
    return key(3, index, 0, LAYOUTS[index % LAYOUTS.length]);
  }

  static UnsafeBuffer pageOf(int index) {
    return page(LAYOUTS[index % LAYOUTS.length], 0, index);
  }

  private static int indexOf(PageKey key) {
    return (int) (key.w2() >>> 32);
  }

  static MappedByteBuffer states(Path file) throws IOException {
    try (FileChannel channel =
        FileChannel.open(
            file, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
      return channel.map(FileChannel.MapMode.READ_WRITE, 0, INDEX_MAX);
    }
  }

  public static void main(String[] args) throws Exception {
    MappedByteBuffer states = states(Path.of(args[1]));
    PageStore store =
        new PageCache(
            new NotingStore(ChroniclePageStore.open(Path.of(args[0]), BYTES_MAX), states),
            CacheLimits.none(),
            new LeaseTable(LeaseLimits.defaults(), 1),
            new EventLog(1 << 10, 1),
            (reason, ageNs, length) -> {},
            System::nanoTime);
    Thread[] threads = new Thread[THREADS];
    for (int t = 0; t < THREADS; t++) {
      int first = t;
      threads[t] = Thread.ofPlatform().start(() -> run(store, first));
    }
    for (Thread thread : threads) {
      thread.join();
    }
  }

  private static void run(PageStore store, int first) {
    for (int index = first; index < INDEX_MAX; index += THREADS) {
      UnsafeBuffer page = pageOf(index);
      store.put(keyOf(index), page, 0, page.capacity());
      int old = index - THREADS * LIVE_PER_THREAD;
      if (old >= 0) {
        store.delete(keyOf(old));
      }
      if (index / THREADS % STEPS_PER_LINE == 0) {
        System.out.println(index);
      }
    }
  }

  /**
   * The store under the cache, noting each step. The cache takes the steps of one key one by one.
   */
  private static final class NotingStore extends ForwardingPageStore {
    private final MappedByteBuffer states;

    NotingStore(PageStore store, MappedByteBuffer states) {
      super(store);
      this.states = states;
    }

    @Override
    public PutResult put(PageKey key, DirectBuffer page, int offset, int length) {
      states.put(indexOf(key), PUT_BEGUN);
      PutResult result = store.put(key, page, offset, length);
      states.put(indexOf(key), STORED);
      return result;
    }

    @Override
    public boolean delete(PageKey key) {
      return deleteIf(key, (page, offset, length) -> true);
    }

    @Override
    public boolean deleteIf(PageKey key, PageReader<Boolean> condition) {
      states.put(indexOf(key), DELETE_BEGUN);
      boolean deleted = store.deleteIf(key, condition);
      states.put(indexOf(key), DELETED);
      return deleted;
    }
  }
}
