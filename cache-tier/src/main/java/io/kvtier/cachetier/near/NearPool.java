package io.kvtier.cachetier.near;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.attention.Kernels;
import io.kvtier.cachetier.PageService;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.LongAdder;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;

/**
 * The threads that compute near the pages, apart from those that move them: a request takes one,
 * and waits for one in a bounded queue. Platform threads, since the store's locks belong to
 * threads. Safe for any number of callers.
 */
public final class NearPool implements AutoCloseable {
  /** Requests that may wait unless configured otherwise. */
  public static final int QUEUE_MAX_DEFAULT = 64;

  private static final int THREADS_MAX = 256;
  private static final int QUEUE_MAX_MAX = 1 << 16;
  private static final long CLOSE_SECONDS = 10;

  private final PageService pages;
  private final Kernels kernels;
  private final int queueMax;
  private final ThreadPoolExecutor executor;

  /** One a thread, for who works just now. */
  private final ArrayBlockingQueue<PageMemory> memories;

  private final LongAdder done = new LongAdder();
  private final LongAdder refused = new LongAdder();
  private final LongAdder tokens = new LongAdder();

  /**
   * A pool with nothing to do.
   *
   * @param threads 1..256
   * @param queueMax requests that may wait, 1..65536
   */
  public NearPool(PageService pages, int threads, int queueMax) {
    this(pages, threads, queueMax, Kernels.best());
  }

  NearPool(PageService pages, int threads, int queueMax, Kernels kernels) {
    requireInRange("near threads", threads, 1, THREADS_MAX);
    requireInRange("near queue max", queueMax, 1, QUEUE_MAX_MAX);
    this.pages = pages;
    this.kernels = kernels;
    this.queueMax = queueMax;
    this.memories = new ArrayBlockingQueue<>(threads);
    for (int i = 0; i < threads; i++) {
      memories.add(new PageMemory());
    }
    this.executor =
        new ThreadPoolExecutor(
            threads,
            threads,
            0,
            TimeUnit.SECONDS,
            new ArrayBlockingQueue<>(queueMax),
            Thread.ofPlatform().name("kvtier-near-", 0).daemon().factory());
  }

  /** As many threads as processors, and the default queue. */
  public static NearPool withDefaults(PageService pages) {
    int processors = Runtime.getRuntime().availableProcessors();
    return new NearPool(pages, Math.min(THREADS_MAX, processors), QUEUE_MAX_DEFAULT);
  }

  /**
   * Has a request computed.
   *
   * @param unwanted asked now and then; true: nobody waits any more
   * @param then is given the result on a thread of the pool; not called if nobody waits
   * @param failed is given what went wrong instead, on a thread of the pool
   * @throws KvtierException EXHAUSTED if too many wait already; nothing is called then
   */
  public void submit(
      NearRequest request,
      BooleanSupplier unwanted,
      Consumer<NearResult> then,
      Consumer<RuntimeException> failed) {
    try {
      executor.execute(() -> work(request, unwanted, then, failed));
    } catch (RejectedExecutionException e) {
      refused.increment();
      throw new KvtierException(
          executor.isShutdown() ? Code.UNAVAILABLE : Code.EXHAUSTED,
          executor.isShutdown()
              ? "the tier is stopping"
              : "%d requests wait to be computed near the pages, their most; fetch the pages, or send"
                      .formatted(queueMax)
                  + " the call again later",
          e);
    }
  }

  private void work(
      NearRequest request,
      BooleanSupplier unwanted,
      Consumer<NearResult> then,
      Consumer<RuntimeException> failed) {
    if (unwanted.getAsBoolean()) {
      return;
    }
    // There are as many memories as threads, so one is there.
    PageMemory memory = memories.remove();
    try {
      NearResult result = new NearCompute(request, pages, memory, kernels).run(unwanted);
      if (result != null) {
        done.increment();
        tokens.add(result.tokens() * request.kvHeads().length);
        then.accept(result);
      }
    } catch (RuntimeException e) {
      failed.accept(e);
    } finally {
      memories.add(memory);
    }
  }

  /** Requests that wait. */
  public int waiting() {
    return executor.getQueue().size();
  }

  /** Requests computed. */
  public long done() {
    return done.sum();
  }

  /** Requests refused because too many waited. */
  public long refused() {
    return refused.sum();
  }

  /** (token, KV head) pairs scored or attended. */
  public long tokens() {
    return tokens.sum();
  }

  /** Lets the requests under way end; those that wait are given up. Idempotent. */
  @Override
  public void close() {
    executor.shutdownNow();
    try {
      if (executor.awaitTermination(CLOSE_SECONDS, TimeUnit.SECONDS)) {
        for (PageMemory memory = memories.poll(); memory != null; memory = memories.poll()) {
          memory.close();
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
