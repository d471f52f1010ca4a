package io.kvtier.cachetier.chronicle;

import io.kvtier.KvtierException;
import io.kvtier.cachetier.PageStore;
import io.kvtier.page.PageKey;
import io.kvtier.page.Pages;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.agrona.concurrent.UnsafeBuffer;

/** A process that meets a full disk, sees it get room again, and restarts its store. */
final class CrampedWriter {
  private static final long BYTES_MAX = 40 << 20;
  private static final long LEFT = 4 << 20;

  private CrampedWriter() {}

  public static void main(String[] args) throws IOException {
    Path disk = Path.of(args[0]);
    Path other = disk.resolve("other");
    int stored;
    try (PageStore store = ChroniclePageStore.open(disk.resolve("store"), BYTES_MAX)) {
      stored = putUntilRefused(store, 0, 20);
      Files.write(other, new byte[(int) (disk.toFile().getUsableSpace() - LEFT)]);
      stored = putUntilRefused(store, stored, Integer.MAX_VALUE);
      tell("full", store, stored);
      stored = putUntilRefused(store, stored, Integer.MAX_VALUE);
      tell("still full", store, stored);
      Files.delete(other);
      stored = putUntilRefused(store, stored, Integer.MAX_VALUE);
      tell("room again", store, stored);
    }
    try (ChroniclePageStore store = ChroniclePageStore.open(disk.resolve("store"), BYTES_MAX)) {
      tell("recovered " + store.recovery().pagesKept(), store, stored);
    }
  }

  private static int putUntilRefused(PageStore store, int from, int to) {
    for (int index = from; index < to; index++) {
      UnsafeBuffer page = DoomedWriter.pageOf(index);
      try {
        store.put(DoomedWriter.keyOf(index), page, 0, page.capacity());
      } catch (KvtierException e) {
        System.out.println(e.code() + " " + e.getMessage());
        return index;
      }
    }
    return to;
  }

  private static void tell(String state, PageStore store, int stored) {
    int whole = 0;
    for (int index = 0; index < stored; index++) {
      PageKey key = DoomedWriter.keyOf(index);
      Pages.Flaw flaw = store.read(key, (page, at, length) -> Pages.verify(key, page, at, length));
      whole += flaw == Pages.Flaw.NONE ? 1 : 0;
    }
    System.out.printf("%s: %b%n", state, whole == stored && stored > 0);
    System.out.println("left: " + (store.bytesMax() - store.bytesUsed()));
  }
}
