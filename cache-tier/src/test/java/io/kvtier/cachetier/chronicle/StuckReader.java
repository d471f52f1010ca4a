package io.kvtier.cachetier.chronicle;

import io.kvtier.mapped.MappedPages;
import java.nio.file.Path;

/** A process that begins to read a page in a store's files, says so, and never ends. */
final class StuckReader {
  private StuckReader() {}

  public static void main(String[] args) {
    MappedPages pages = MappedPages.open(Path.of(args[0]), Long.parseLong(args[1])).orElseThrow();
    boolean read =
        pages.read(
            DoomedWriter.keyOf(0),
            (page, length) -> {
              System.out.println("reading " + page.getByte(length - 1));
              while (true) {
                Thread.onSpinWait();
              }
            });
    System.out.println(read);
  }
}
