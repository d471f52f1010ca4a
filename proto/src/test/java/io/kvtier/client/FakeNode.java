package io.kvtier.client;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.Miss;
import io.kvtier.v1.PageMiss;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.ObjIntConsumer;
import org.agrona.concurrent.UnsafeBuffer;

/** A tier node in a map that can be told to misbehave. */
final class FakeNode implements PageTransport {
  /** What it does wrong. */
  enum Fault {
    NONE,
    /** Refuses every call. */
    DOWN,
    /** Refuses puts alone. */
    FULL,
    /** Gives one page of a call and then dies. */
    CRASHES,
    /** Flips a bit of each page. */
    FLIPS,
    /** Gives each page twice. */
    DUPLICATES,
    /** Leaves the last page of a call out. */
    SHORT,
    /** Attends to nothing: there is too much of it to do. */
    BUSY,
    /** Waits for {@link #release}. */
    HOLDS
  }

  final Map<PageKey, ByteString> pages = new ConcurrentHashMap<>();
  final BlockingQueue<PageKey> stored = new LinkedBlockingQueue<>();
  final BlockingQueue<PageKey> deletes = new LinkedBlockingQueue<>();
  final CountDownLatch release = new CountDownLatch(1);
  volatile Fault fault = Fault.NONE;

  private void begin() {
    if (fault == Fault.DOWN) {
      throw new KvtierException(Code.UNAVAILABLE, "the node is down");
    }
    if (fault == Fault.HOLDS) {
      try {
        if (!release.await(30, TimeUnit.SECONDS)) {
          throw new KvtierException(Code.DEADLINE, "held for 30 s");
        }
      } catch (InterruptedException e) {
        throw new KvtierException(Code.UNAVAILABLE, "interrupted", e);
      }
    }
  }

  @Override
  public void put(List<KeyedPage> batch) {
    begin();
    for (KeyedPage page : batch) {
      if (fault == Fault.FULL) {
        throw new KvtierException(Code.EXHAUSTED, "the node is full");
      }
      pages.put(page.key(), page.page());
      stored.add(page.key());
    }
  }

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    begin();
    for (int i = 0; i < keys.size(); i++) {
      ByteString page = pages.get(keys.get(i));
      if (page == null) {
        throw new KvtierException(Code.LOST, "no page " + keys.get(i));
      }
      if (fault == Fault.SHORT && i == keys.size() - 1) {
        return;
      }
      consumer.accept(fault == Fault.FLIPS ? flipped(page) : page, i);
      if (fault == Fault.DUPLICATES) {
        consumer.accept(page, i);
      }
      if (fault == Fault.CRASHES) {
        throw new KvtierException(Code.UNAVAILABLE, "the node has crashed");
      }
    }
  }

  private static ByteString flipped(ByteString page) {
    byte[] bytes = page.toByteArray();
    // The last section begins so far from the end; what follows it is padding, which nobody reads.
    bytes[bytes.length - PageLayout.ALIGNMENT] ^= 1;
    return ByteString.copyFrom(bytes);
  }

  /** The first 100 bytes of each page. */
  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    get(
        wanted.stream().map(each -> PageKey.of(each.getKey())).toList(),
        (page, index) -> consumer.accept(page.substring(0, 100), index));
  }

  /** The bytes of each page from 100 to 150. */
  @Override
  public void readRows(PageLayout layout, List<RowsOf> wanted, PageConsumer consumer) {
    get(
        wanted.stream().map(each -> PageKey.of(each.getKey())).toList(),
        (page, index) ->
            consumer.accept(new UnsafeBuffer(page.asReadOnlyByteBuffer()), 100, 50, index));
  }

  /** Every page's partial: its key's first word as the output's first element, LSE 0. */
  @Override
  public Optional<NearPages.Attended> attend(
      List<PageKey> keys, NearPages.Queries queries, long[] tokens) {
    begin();
    if (fault == Fault.BUSY) {
      throw new KvtierException(Code.EXHAUSTED, "64 requests wait already");
    }
    NearSum sum = new NearSum(queries);
    List<PageMiss> misses = new ArrayList<>();
    for (int i = 0; i < keys.size(); i++) {
      if (pages.containsKey(keys.get(i))) {
        float[] output = new float[queries.headDim()];
        output[0] = valueOf(keys.get(i));
        sum.add(
            new NearPages.Attended(output, new float[1], Long.bitCount(tokens[i]), List.of(), 1, 1),
            index -> index);
      } else {
        misses.add(PageMiss.newBuilder().setIndex(i).setMiss(Miss.MISS_ABSENT).build());
      }
    }
    NearPages.Attended all = sum.result();
    return Optional.of(
        new NearPages.Attended(all.output(), all.lse(), all.tokens(), misses, all.bytesMoved(), 1));
  }

  static float valueOf(PageKey key) {
    return key.hashCode() % 1000;
  }

  @Override
  public void delete(List<PageKey> keys) {
    // A delete is not held: it may overtake a put.
    if (fault == Fault.DOWN) {
      begin();
    }
    keys.forEach(pages::remove);
    deletes.addAll(keys);
  }

  @Override
  public void close() {}
}
