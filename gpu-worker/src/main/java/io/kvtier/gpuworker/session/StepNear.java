package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.NearPages.Attended;
import io.kvtier.gpuworker.core.FetchOrAttend.Course;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.jspecify.annotations.Nullable;

/**
 * One query's streamed heads, attended to in the tier or not, as {@link NearAttention} has decided.
 * One thread; the caller holds the layer's lock.
 */
final class StepNear {
  /** Nothing is attended to elsewhere. */
  static final StepNear NOTHING = new StepNear(null, null, Course.FETCH, null, null, 0);

  private final @Nullable NearAttention near;
  private final @Nullable LayerPass pass;
  private final Course course;
  private final @Nullable NearPart part;
  private final @Nullable CompletableFuture<Optional<Attended>> call;
  private final long patienceNs;
  private @Nullable Attended answer;
  private boolean attended;
  private long unhiddenNs;

  /**
   * One query's.
   *
   * @param patienceNs longest wait for the tier's answer
   */
  StepNear(
      @Nullable NearAttention near,
      @Nullable LayerPass pass,
      Course course,
      @Nullable NearPart part,
      @Nullable CompletableFuture<Optional<Attended>> call,
      long patienceNs) {
    this.near = near;
    this.pass = pass;
    this.course = course;
    this.part = part;
    this.call = call;
    this.patienceNs = patienceNs;
  }

  /**
   * Waits for the tier's answer, for so long: whatever keeps it away, the pages can be fetched, and
   * that tells what is wrong if it fails too.
   *
   * @return first pages of streamed heads that need no fetch
   * @throws KvtierException UNAVAILABLE if this thread is interrupted
   */
  int await() {
    if (near == null || part == null || pass == null || call == null) {
      return 0;
    }
    long startNs = System.nanoTime();
    try {
      Optional<Attended> told = call.get(patienceNs, TimeUnit.NANOSECONDS);
      answer = near.checked(part, told, System.nanoTime() - startNs);
    } catch (TimeoutException e) {
      near.refused("no answer within %d ms".formatted(patienceNs / 1_000_000));
    } catch (ExecutionException e) {
      if (e.getCause() instanceof Error error) {
        throw error;
      }
      near.refused(String.valueOf(e.getCause()));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new KvtierException(Code.UNAVAILABLE, "interrupted while the tier attends", e);
    } finally {
      unhiddenNs += System.nanoTime() - startNs;
    }
    if (answer == null) {
      return 0;
    }
    if (course == Course.BOTH) {
      part.compare();
      return 0;
    }
    for (int head : part.queries.kvHeads()) {
      pass.skipPages(head, part.pages);
    }
    attended = true;
    return part.pages;
  }

  /** A page has been fetched. */
  void fetched(int page, int kvHead, DeviceSlot codes) {
    if (part != null && answer != null && !attended) {
      part.take(page, kvHead, codes);
    }
  }

  /**
   * All pages that were not attended to elsewhere have been fetched.
   *
   * @param ns how long that took
   */
  void fetchedAll(long ns) {
    if (near == null || part == null || attended) {
      return;
    }
    near.fetched(part, ns);
    Attended other = answer;
    if (other != null && !part.agrees(other)) {
      near.disagrees(part);
    }
  }

  /** Merges what was attended to elsewhere with what the device gave. */
  void merge(float[] output, int outputAt, float[] lse, int lseAt) {
    Attended other = answer;
    if (attended && part != null && other != null) {
      part.merge(other, output, outputAt, lse, lseAt);
    }
  }

  /** (page, KV head) pairs whose partial came from elsewhere. */
  int pairs() {
    return attended && part != null ? part.pairs() : 0;
  }

  /** Nanoseconds of waiting. */
  long unhiddenNs() {
    return unhiddenNs;
  }
}
