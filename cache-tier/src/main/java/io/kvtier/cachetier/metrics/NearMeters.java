package io.kvtier.cachetier.metrics;

import io.kvtier.cachetier.near.NearPool;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;

/** What is computed near the pages; each meter's description is its documentation. */
public final class NearMeters {
  private NearMeters() {}

  /** Registers all meters; they read their values when they are asked. */
  public static void bind(MeterRegistry meters, NearPool pool) {
    Gauge.builder("kvtier.tier.near.waiting", pool, NearPool::waiting)
        .strongReference(true)
        .description("Score and Attend requests that wait for a thread")
        .register(meters);
    FunctionCounter.builder("kvtier.tier.near.done", pool, NearPool::done)
        .description("Score and Attend requests computed")
        .register(meters);
    FunctionCounter.builder("kvtier.tier.near.refused", pool, NearPool::refused)
        .description("Score and Attend requests refused because too many waited")
        .register(meters);
    FunctionCounter.builder("kvtier.tier.near.tokens", pool, NearPool::tokens)
        .description("(token, KV head) pairs scored or attended")
        .register(meters);
  }
}
