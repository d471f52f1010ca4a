package io.kvtier.client;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.v1.Geometry;
import io.kvtier.v1.Plan;
import java.util.Optional;

/**
 * What to open a session with.
 *
 * @param geometry the model's KV cache
 * @param tokensMax longest context, prompt and generated tokens together, 1..1048576
 * @param deviceBytesMax bytes of device memory the session may hold; 0: a quarter of the full KV
 *     cache at 16 bits
 * @param plan a plan made by hand; empty: kvtier makes one from the prompt's last queries
 */
public record SessionOptions(
    Geometry geometry, int tokensMax, long deviceBytesMax, Optional<Plan> plan) {
  public SessionOptions {
    requireInRange("tokens_max", tokensMax, 1, 1 << 20);
    requireInRange("device_bytes_max", deviceBytesMax, 0, Long.MAX_VALUE);
  }

  /** Everything that has a default at its default. */
  public static SessionOptions of(Geometry geometry, int tokensMax) {
    return new SessionOptions(geometry, tokensMax, 0, Optional.empty());
  }
}
