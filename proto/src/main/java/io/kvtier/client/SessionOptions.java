package io.kvtier.client;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.v1.Geometry;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import java.time.Duration;
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
 * @param owner who the session belongs to, 0..64 characters of printable ASCII: nobody else can
 *     resume, fork or close it; empty: whoever knows its id and epoch
 * @param idleTimeout the session is closed when nothing has been heard of it for so long, 100 ms..7
 *     days; zero: an hour
 */
public record SessionOptions(
    Geometry geometry,
    int tokensMax,
    long deviceBytesMax,
    Optional<Plan> plan,
    PlanMode mode,
    List<Integer> tokenIds,
    long replayBytesMax,
    String owner,
    Duration idleTimeout) {
  private static final Duration IDLE_TIMEOUT_MAX = Duration.ofDays(7);

  /** What is kept to be sent again unless told otherwise, at most. */
  public static final long REPLAY_BYTES_MAX = 256 << 20;

  public SessionOptions {
    requireInRange("length of token_ids", tokenIds.size(), 0, tokensMax);
    tokenIds = List.copyOf(tokenIds);
    requireInRange("tokens_max", tokensMax, 1, 1 << 20);
    requireInRange("device_bytes_max", deviceBytesMax, 0, Long.MAX_VALUE);
    requireInRange("replay bytes", replayBytesMax, 0, Long.MAX_VALUE);
    requireInRange("idle time-out in ms", idleTimeout.toMillis(), 0, IDLE_TIMEOUT_MAX.toMillis());
  }

  /** The same of nobody in particular, closed after an hour without use. */
  public SessionOptions(
      Geometry geometry,
      int tokensMax,
      long deviceBytesMax,
      Optional<Plan> plan,
      PlanMode mode,
      List<Integer> tokenIds,
      long replayBytesMax) {
    this(
        geometry,
        tokensMax,
        deviceBytesMax,
        plan,
        mode,
        tokenIds,
        replayBytesMax,
        "",
        Duration.ZERO);
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
    return with(bytes, mode, tokenIds, replayBytesMax, owner, idleTimeout);
  }

  /** The same with another method. */
  public SessionOptions withMode(PlanMode other) {
    return with(deviceBytesMax, other, tokenIds, replayBytesMax, owner, idleTimeout);
  }

  /** The same for a prompt whose pages are shared. */
  public SessionOptions withTokenIds(List<Integer> ids) {
    return with(deviceBytesMax, mode, ids, replayBytesMax, owner, idleTimeout);
  }

  /** The same with another bound on what is kept to be sent again; 0: nothing. */
  public SessionOptions withReplayBytesMax(long bytes) {
    return with(deviceBytesMax, mode, tokenIds, bytes, owner, idleTimeout);
  }

  /** The same that belongs to somebody. */
  public SessionOptions withOwner(String name) {
    return with(deviceBytesMax, mode, tokenIds, replayBytesMax, name, idleTimeout);
  }

  /** The same that is closed when it has not been used for so long. */
  public SessionOptions withIdleTimeout(Duration timeout) {
    return with(deviceBytesMax, mode, tokenIds, replayBytesMax, owner, timeout);
  }

  private SessionOptions with(
      long deviceBytes,
      PlanMode method,
      List<Integer> ids,
      long replayBytes,
      String name,
      Duration timeout) {
    return new SessionOptions(
        geometry, tokensMax, deviceBytes, plan, method, ids, replayBytes, name, timeout);
  }
}
