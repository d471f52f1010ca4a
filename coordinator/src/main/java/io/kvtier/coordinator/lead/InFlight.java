package io.kvtier.coordinator.lead;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Supplier;

/**
 * Calls that are being served, by key: the same call that comes again meanwhile waits for the
 * answer of the first. Thread-safe.
 */
final class InFlight<R> {
  private final Map<String, CompletableFuture<R>> calls = new ConcurrentHashMap<>();

  /** Serves a call, or waits for the same one; a call with an empty key is like no other. */
  R once(String key, Supplier<R> call) {
    if (key.isEmpty()) {
      return call.get();
    }
    CompletableFuture<R> mine = new CompletableFuture<>();
    CompletableFuture<R> first = calls.putIfAbsent(key, mine);
    if (first != null) {
      return await(first);
    }
    try {
      R answer = call.get();
      mine.complete(answer);
      return answer;
    } catch (RuntimeException e) {
      mine.completeExceptionally(e);
      throw e;
    } finally {
      calls.remove(key);
    }
  }

  private R await(CompletableFuture<R> first) {
    try {
      return first.join();
    } catch (CompletionException e) {
      if (e.getCause() instanceof KvtierException refused) {
        throw new KvtierException(refused.code(), String.valueOf(refused.getMessage()), refused);
      }
      throw new KvtierException(Code.INTERNAL, "the same call failed: " + e.getCause(), e);
    }
  }
}
