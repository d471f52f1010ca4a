package io.kvtier.cachetier.cache;

import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.chronicle.ChroniclePageStore;
import io.kvtier.cachetier.lease.LeaseLimits;
import io.kvtier.cachetier.lease.LeaseTable;
import io.kvtier.cachetier.memory.MemoryPageStore;
import io.kvtier.cachetier.watch.EventLog;
import io.kvtier.page.Codec;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A process that fills a cache to its bound with pages of a common geometry, tells what that took,
 * and then closes it or waits to be killed.
 */
final class FilledCache {
  /** rot4, 8 KV heads of 128. */
  static final PageLayout LAYOUT = new PageLayout(Codec.ROT4, Codec.ROT4, 8, 128);

  private static final String MEMORY = "memory";
  private static final Pattern RESIDENT = Pattern.compile("VmRSS:\\s+([0-9]+) kB");
  private static final Pattern REPORT =
      Pattern.compile("filled ([0-9]+) pages, heap (-?[0-9]+), resident (-?[0-9]+)");

  /**
   * What filling took.
   *
   * @param heap bytes of live objects on the heap
   * @param resident bytes of memory that the process uses, without its heap
   */
  record Report(long pages, long heap, long resident) {
    long payload() {
      return pages * LAYOUT.pageLength();
    }
  }

  private FilledCache() {}

  static PageKey keyOf(int index) {
    return TestPages.key(5, index, 0, LAYOUT);
  }

  static PageCache cacheOver(PageStore store) {
    return new PageCache(
        store,
        CacheLimits.none(),
        new LeaseTable(LeaseLimits.defaults(), 1),
        new EventLog(1 << 16, 1),
        (reason, ageNs, length) -> {},
        System::nanoTime);
  }

  /** Fills a cache in another process, which then has closed it, or has been killed. */
  static Report fill(String where, long bytesMax, boolean kill) throws Exception {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
    // A heap that is resident from the start, so that what is added later is not heap; and nothing
    // on it that may go or stay.
    command.addAll(
        List.of(
            "-Xms512m",
            "-Xmx512m",
            "-XX:+AlwaysPreTouch",
            "-XX:+UseSerialGC",
            "-XX:SoftRefLRUPolicyMSPerMB=0"));
    command.addAll(List.of("-cp", System.getProperty("java.class.path")));
    command.addAll(List.of(FilledCache.class.getName(), where, Long.toString(bytesMax)));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    try (BufferedReader out =
        new BufferedReader(
            new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
      for (String line = out.readLine(); line != null; line = out.readLine()) {
        System.out.println(where + ": " + line);
        Matcher matcher = REPORT.matcher(line);
        if (matcher.matches()) {
          if (kill) {
            process.destroyForcibly();
          } else {
            process.getOutputStream().write('\n');
            process.getOutputStream().close();
          }
          process.waitFor();
          return new Report(
              Long.parseLong(matcher.group(1)),
              Long.parseLong(matcher.group(2)),
              Long.parseLong(matcher.group(3)));
        }
      }
      throw new IllegalStateException("the process has told nothing");
    } finally {
      process.destroyForcibly();
    }
  }

  public static void main(String[] args) throws IOException {
    long bytesMax = Long.parseLong(args[1]);
    PageStore store =
        args[0].equals(MEMORY)
            ? new MemoryPageStore(bytesMax)
            : ChroniclePageStore.open(Path.of(args[0]), bytesMax);
    try (PageCache cache = cacheOver(store)) {
      put(cache, 0);
      long heap = liveHeap();
      long resident = resident();
      int pages = (int) (bytesMax / LAYOUT.pageLength());
      for (int index = 1; index < pages; index++) {
        put(cache, index);
      }
      System.out.printf(
          "filled %d pages, heap %d, resident %d%n",
          cache.pages(), liveHeap() - heap, resident() - resident);
      var _ = System.in.read();
    }
  }

  private static void put(PageCache cache, int index) {
    cache.put(keyOf(index), TestPages.page(LAYOUT, 0, index), 0, LAYOUT.pageLength());
  }

  private static long liveHeap() {
    System.gc();
    return ManagementFactory.getMemoryMXBean().getHeapMemoryUsage().getUsed();
  }

  private static long resident() throws IOException {
    Matcher matcher = RESIDENT.matcher(Files.readString(Path.of("/proc/self/status")));
    if (!matcher.find()) {
      throw new IllegalStateException("no VmRSS");
    }
    return Long.parseLong(matcher.group(1)) << 10;
  }
}
