package io.kvtier.gpuworker.session;

import com.github.benmanes.caffeine.cache.AsyncCache;
import com.github.benmanes.caffeine.cache.Caffeine;
import io.kvtier.gpuworker.device.DeviceSlot;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * Fetched codes that stay on the device for later steps, bounded in bytes, chosen by frequency and
 * recency (W-TinyLFU, arXiv 1512.00727, by Caffeine). The set holds each slot once; whoever uses
 * one holds it too, so an eviction never takes codes away from a running step. A fetch under way is
 * in the set as a future, so that nobody fetches twice. Safe for any number of threads.
 */
final class HotSet {
  /** Some sections, as a section set, of one head of one page of one layer. */
  record Key(int layer, int page, int kvHead, int sections) {}

  private final AtomicLong bytes = new AtomicLong();
  private final AsyncCache<Key, DeviceSlot> slots;

  HotSet(long bytesMax) {
    this.slots =
        Caffeine.newBuilder()
            .maximumWeight(bytesMax)
            .weigher((Key key, DeviceSlot slot) -> slot.length())
            .executor(Runnable::run)
            .removalListener((key, slot, cause) -> {
              if (slot != null) {
                bytes.addAndGet(-slot.length());
                slot.release();
              }
            })
            .buildAsync();
  }

  /** The slot, or the fetch of it that is under way; null: neither. */
  @Nullable CompletableFuture<DeviceSlot> find(Key key) {
    return slots.getIfPresent(key);
  }

  /** Adds a slot unless it is there; the set holds it once more, if it keeps it. */
  void admit(Key key, DeviceSlot slot) {
    CompletableFuture<DeviceSlot> future = announce(key);
    if (future != null) {
      complete(future, slot.retain());
    }
  }

  /**
   * Announces a fetch; null if the slot is there or somebody else is fetching it. The caller must
   * complete or fail it.
   */
  @Nullable CompletableFuture<DeviceSlot> announce(Key key) {
    CompletableFuture<DeviceSlot> future = new CompletableFuture<>();
    return slots.asMap().putIfAbsent(key, future) == null ? future : null;
  }

  /** Ends an announced fetch; the caller's hold on the slot becomes the set's. */
  void complete(CompletableFuture<DeviceSlot> announced, DeviceSlot slot) {
    bytes.addAndGet(slot.length());
    announced.complete(slot);
  }

  /** Most bytes that it keeps. */
  long bytesMax() {
    return slots.synchronous().policy().eviction().orElseThrow().getMaximum();
  }

  /** Lowers the bound to at most so many bytes. */
  void shrink(long bytesMax) {
    if (bytesMax() > bytesMax) {
      resize(bytesMax);
    }
  }

  void resize(long bytesMax) {
    slots.synchronous().policy().eviction().orElseThrow().setMaximum(bytesMax);
    slots.synchronous().cleanUp();
  }

  /** Bytes that the set holds on the device. */
  long bytes() {
    return bytes.get();
  }

  /** Lets go of everything. */
  void clear() {
    slots.synchronous().invalidateAll();
    slots.synchronous().cleanUp();
  }
}
