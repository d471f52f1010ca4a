package io.kvtier.integration;

import io.netty.util.internal.PlatformDependent;
import java.lang.management.BufferPoolMXBean;
import java.lang.management.ManagementFactory;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.management.JMException;
import javax.management.ObjectName;

/**
 * How many objects of each of the project's classes are reachable, by the virtual machine's own
 * count after a collection.
 */
final class LiveObjects {
  /** The tier keeps so many of its last changes for whoever watches it. */
  private static final String EVENT = "io.kvtier.cachetier.watch.PageEvent";

  /** Each event has one. */
  private static final String KEY = "io.kvtier.page.PageKey";

  /** The coordinator keeps its last changes, too, each with the session as it was then. */
  private static final Set<String> OF_CHANGES =
      Stream.of("SessionChange", "Session", "Ancestor", "Geometry", "Plan", "HeadPlan")
          .map(name -> "io.kvtier.v1." + name)
          .collect(Collectors.toSet());

  private final Map<String, Long> counts;

  private LiveObjects(Map<String, Long> counts) {
    this.counts = counts;
  }

  /** Counts the objects of the services and of what they send. */
  static LiveObjects ofServices() throws JMException {
    Object histogram =
        ManagementFactory.getPlatformMBeanServer()
            .invoke(
                new ObjectName("com.sun.management:type=DiagnosticCommand"),
                "gcClassHistogram",
                new Object[] {new String[0]},
                new String[] {String[].class.getName()});
    Map<String, Long> counts = new TreeMap<>();
    String.valueOf(histogram)
        .lines()
        .map(line -> line.strip().split("\\s+", -1))
        .filter(fields -> fields.length >= 4 && fields[3].startsWith("io.kvtier."))
        .forEach(fields -> counts.merge(fields[3], Long.parseLong(fields[1]), Long::sum));
    if (counts.isEmpty()) {
      throw new AssertionError("no class of ours in\n" + histogram);
    }
    return new LiveObjects(counts);
  }

  /** The classes of which there are so many more now than before, with their numbers. */
  Map<String, Long> grownSince(LiveObjects before, long most) {
    Map<String, Long> grown = new TreeMap<>();
    counts
        .keySet()
        .forEach(name -> {
          long more = more(name, before) - (name.equals(KEY) ? more(EVENT, before) : 0);
          if (more > most && !name.equals(EVENT) && !OF_CHANGES.contains(name)) {
            grown.put(name, more);
          }
        });
    return grown;
  }

  private long more(String name, LiveObjects before) {
    return counts.getOrDefault(name, 0L) - before.counts.getOrDefault(name, 0L);
  }

  /** Bytes of direct buffers, of the library's and of Netty's. */
  static long bufferBytes() {
    return Math.max(0, PlatformDependent.usedDirectMemory())
        + ManagementFactory.getPlatformMXBeans(BufferPoolMXBean.class).stream()
            .filter(pool -> pool.getName().equals("direct"))
            .mapToLong(BufferPoolMXBean::getMemoryUsed)
            .sum();
  }
}
