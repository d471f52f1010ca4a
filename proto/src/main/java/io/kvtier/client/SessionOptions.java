package io.kvtier.client;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.v1.Geometry;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.util.List;
import java.util.Optional;

/**
 * What to open a session with.
 *
 * @param geometry the model's KV cache
 * @param tokensMax longest context, prompt and generated tokens together, 1..1048576
 * @param deviceBytesMax bytes of device memory the session may hold; 0: a quarter of the full KV
 *     cache at 16 bits
 * @param plan a plan made by hand; empty: kvtier makes one from the prompt's last queries
 * @param mode which method places and attends
 * @param tokenIds the prompt's, from its first token on: its pages are shared with other sessions
 *     whose prompts begin alike; empty: they are the session's own
 * @param replayBytesMax most bytes of memory here that keep what was sent and is not stored yet,
 *     with which the session goes on by itself when its worker fails; they are taken as they are
 *     needed, some hundred tokens of each layer. 0: nothing is kept, and failures are the caller's
 */
public record SessionOptions(
    Geometry geometry,
    int tokensMax,
    long deviceBytesMax,
    Optional<Plan> plan,
    PlanMode mode,
    List<Integer> tokenIds,
    long replayBytesMax) {
  /** What is kept to be sent again unless told otherwise, at most. */
  public static final long REPLAY_BYTES_MAX = 256 << 20;

  public SessionOptions {
    requireInRange("length of token_ids", tokenIds.size(), 0, tokensMax);
    tokenIds = List.copyOf(tokenIds);
    requireInRange("tokens_max", tokensMax, 1, 1 << 20);
    requireInRange("device_bytes_max", deviceBytesMax, 0, Long.MAX_VALUE);
    requireInRange("replay bytes", replayBytesMax, 0, Long.MAX_VALUE);
  }

  /** The same with what is kept to be sent again at its default. */
  public SessionOptions(
      Geometry geometry,
      int tokensMax,
      long deviceBytesMax,
      Optional<Plan> plan,
      PlanMode mode,
      List<Integer> tokenIds) {
    this(geometry, tokensMax, deviceBytesMax, plan, mode, tokenIds, REPLAY_BYTES_MAX);
  }

  /** The same without token ids. */
  public SessionOptions(
      Geometry geometry, int tokensMax, long deviceBytesMax, Optional<Plan> plan, PlanMode mode) {
    this(geometry, tokensMax, deviceBytesMax, plan, mode, List.of());
  }

  /** The same in kvtier's own mode. */
  public SessionOptions(
      Geometry geometry, int tokensMax, long deviceBytesMax, Optional<Plan> plan) {
    this(geometry, tokensMax, deviceBytesMax, plan, PlanMode.PLAN_MODE_KVTIER, List.of());
  }

  /** Everything that has a default at its default. */
  public static SessionOptions of(Geometry geometry, int tokensMax) {
    return new SessionOptions(geometry, tokensMax, 0, Optional.empty());
  }

  /** The same with another bound on device memory. */
  public SessionOptions withDeviceBytesMax(long bytes) {
    return new SessionOptions(geometry, tokensMax, bytes, plan, mode, tokenIds, replayBytesMax);
  }

  /** The same with another method. */
  public SessionOptions withMode(PlanMode other) {
    return new SessionOptions(
        geometry, tokensMax, deviceBytesMax, plan, other, tokenIds, replayBytesMax);
  }

  /** The same for a prompt whose pages are shared. */
  public SessionOptions withTokenIds(List<Integer> ids) {
    return new SessionOptions(geometry, tokensMax, deviceBytesMax, plan, mode, ids, replayBytesMax);
  }

  /** The same with another bound on what is kept to be sent again; 0: nothing. */
  public SessionOptions withReplayBytesMax(long bytes) {
    return new SessionOptions(geometry, tokensMax, deviceBytesMax, plan, mode, tokenIds, bytes);
  }
}
