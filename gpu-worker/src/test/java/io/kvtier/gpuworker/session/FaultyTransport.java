package io.kvtier.gpuworker.session;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.PageGroupAttention;
import io.kvtier.client.NearPages;
import io.kvtier.client.PageConsumer;
import io.kvtier.client.PageTransport;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import io.kvtier.page.TokenRows;
import io.kvtier.v1.Miss;
import io.kvtier.v1.PageMiss;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.ObjIntConsumer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A tier in a map that can be told to fail: to be away, to be full, to lose pages, to answer short
 * or wrongly.
 */
final class FaultyTransport implements PageTransport {
  /** What it does wrong. */
  enum Fault {
    NONE,
    AWAY,
    FULL,
    SHORT,
    /** Attends to nothing: there is too much of it to do. */
    BUSY,
    /** Attends to nothing, and fails as no transport should. */
    BROKEN,
    /** Says nothing to whoever asks to attend, until {@link #puts} lets go. */
    SILENT,
    /** Attends, and tells outputs one hundredth off. */
    WRONG_OUTPUT,
    /** Attends, and tells log-sum-exps one hundredth off. */
    WRONG_LSE,
    /** Attends to all pages but the last, and does not say so. */
    SKIPS
  }

  final Map<PageKey, ByteString> pages = new ConcurrentHashMap<>();
  volatile Fault fault = Fault.NONE;

  /** Runs when sections are asked for. */
  volatile Runnable onRead = () -> {};

  /** Rows that have been read. */
  final AtomicInteger rowsRead = new AtomicInteger();

  /** Calls to read rows. */
  final AtomicInteger rowCalls = new AtomicInteger();

  /** What puts wait for. */
  volatile CountDownLatch puts = new CountDownLatch(0);

  /** Calls to attend. */
  final AtomicInteger attendCalls = new AtomicInteger();

  /** Calls to read sections. */
  final AtomicInteger sectionCalls = new AtomicInteger();

  private final PageLayout layout;

  /** Partials that its answers are merged of. */
  volatile int parts = 1;

  /** Nanoseconds that an answer to who asks to attend takes at least. */
  volatile long attendNs;

  /** Whether it attends to pages at all. */
  volatile boolean attends;

  FaultyTransport(PageLayout layout) {
    this.layout = layout;
  }

  private void mayFail() {
    if (fault == Fault.AWAY) {
      throw new KvtierException(Code.UNAVAILABLE, "the tier does not answer");
    }
  }

  @Override
  public void put(List<KeyedPage> batch) {
    mayFail();
    awaitPuts();
    if (fault == Fault.FULL) {
      throw new KvtierException(Code.EXHAUSTED, "tier is full");
    }
    batch.forEach(page -> pages.putIfAbsent(page.key(), page.page()));
  }

  private void awaitPuts() {
    try {
      if (!puts.await(30, TimeUnit.SECONDS)) {
        throw new KvtierException(Code.DEADLINE, "held for 30 s");
      }
    } catch (InterruptedException e) {
      throw new KvtierException(Code.UNAVAILABLE, "interrupted", e);
    }
  }

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    mayFail();
    for (int i = 0; i < keys.size(); i++) {
      consumer.accept(stored(keys.get(i)), i);
    }
  }

  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    onRead.run();
    sectionCalls.incrementAndGet();
    mayFail();
    for (int i = 0; i < wanted.size(); i++) {
      ByteString data = sections(wanted.get(i));
      consumer.accept(fault == Fault.SHORT ? data.substring(0, data.size() - 1) : data, i);
    }
  }

  private ByteString sections(SectionsOf wanted) {
    ByteString page = stored(PageKey.of(wanted.getKey()));
    ByteString data = ByteString.EMPTY;
    for (int head = 0; head < layout.kvHeads(); head++) {
      if ((wanted.getHeadsLow() >>> head & 1) == 1) {
        for (int id = 0; id < Section.count(); id++) {
          if ((wanted.getSections() >>> id & 1) == 1) {
            int at = layout.offset(head, Section.ofId(id));
            data = data.concat(page.substring(at, at + layout.length(Section.ofId(id))));
          }
        }
      }
    }
    return data;
  }

  @Override
  public void readRows(PageLayout of, List<RowsOf> wanted, PageConsumer consumer) {
    rowCalls.incrementAndGet();
    mayFail();
    for (int i = 0; i < wanted.size(); i++) {
      rowsRead.addAndGet(wanted.get(i).getTokensList().stream().mapToInt(Long::bitCount).sum());
      UnsafeBuffer rows = rows(wanted.get(i));
      consumer.accept(rows, 0, rows.capacity() - (fault == Fault.SHORT ? 1 : 0), i);
    }
  }

  private UnsafeBuffer rows(RowsOf wanted) {
    UnsafeBuffer page = new UnsafeBuffer(stored(PageKey.of(wanted.getKey())).toByteArray());
    TokenRows rows = new TokenRows(layout, wanted.getSections());
    int count = wanted.getTokensList().stream().mapToInt(Long::bitCount).sum();
    UnsafeBuffer taken = new UnsafeBuffer(new byte[count * rows.length()]);
    int asked = 0;
    int at = 0;
    for (int head = 0; head < layout.kvHeads(); head++) {
      if ((wanted.getHeadsLow() >>> head & 1) == 1) {
        for (long left = wanted.getTokens(asked++); left != 0; left &= left - 1) {
          rows.takeFromPage(page, 0, head, Long.numberOfTrailingZeros(left), taken, at);
          at += rows.length();
        }
      }
    }
    return taken;
  }

  @Override
  public Optional<NearPages.Attended> attend(
      List<PageKey> keys, NearPages.Queries queries, long[] tokens) {
    attendCalls.incrementAndGet();
    for (long startNs = System.nanoTime(); System.nanoTime() - startNs < attendNs; ) {
      Thread.onSpinWait();
    }
    mayFail();
    if (!attends) {
      return Optional.empty();
    }
    if (fault == Fault.BUSY) {
      throw new KvtierException(Code.EXHAUSTED, "64 requests wait already");
    }
    if (fault == Fault.BROKEN) {
      throw new IllegalStateException("planted");
    }
    if (fault == Fault.SILENT) {
      awaitPuts();
    }
    int attended = fault == Fault.SKIPS ? keys.size() - 1 : keys.size();
    int group = queries.group();
    int perHead = group * queries.headDim();
    float[] output = new float[queries.kvHeads().size() * perHead];
    float[] lse = new float[queries.kvHeads().size() * group];
    List<PageMiss> misses = new ArrayList<>();
    long count = 0;
    for (int head = 0; head < queries.kvHeads().size(); head++) {
      PageGroupAttention sums = new PageGroupAttention(group, queries.headDim(), Kernels.best());
      sums.begin(queries.rows(), head * perHead, false);
      HeadOffsets at = HeadOffsets.inPage(layout, queries.kvHeads().get(head));
      for (int i = 0; i < attended; i++) {
        ByteString page = pages.get(keys.get(i));
        if (page != null) {
          try (Arena arena = Arena.ofConfined()) {
            MemorySegment memory = arena.allocate(page.size() + 64L, 64);
            memory.copyFrom(MemorySegment.ofArray(page.toByteArray()));
            sums.attend(at, memory.address(), tokens[i]);
          }
          count += head == 0 ? Long.bitCount(tokens[i]) : 0;
        } else if (head == 0) {
          misses.add(PageMiss.newBuilder().setIndex(i).setMiss(Miss.MISS_ABSENT).build());
        }
      }
      sums.finish(output, head * perHead, lse, head * group);
    }
    if (fault == Fault.SKIPS) {
      count += Long.bitCount(tokens[attended]);
    }
    for (int i = 0; fault == Fault.WRONG_OUTPUT && i < output.length; i++) {
      output[i] *= 1.01f;
    }
    for (int i = 0; fault == Fault.WRONG_LSE && i < lse.length; i++) {
      lse[i] += .01f * Math.abs(lse[i]);
    }
    return Optional.of(new NearPages.Attended(output, lse, count, misses, 1, parts));
  }

  private ByteString stored(PageKey key) {
    ByteString page = pages.get(key);
    if (page == null) {
      throw new KvtierException(Code.LOST, "page " + key + " is gone");
    }
    return page;
  }

  @Override
  public void delete(List<PageKey> keys) {
    mayFail();
    keys.forEach(pages::remove);
  }

  @Override
  public void close() {}
}
