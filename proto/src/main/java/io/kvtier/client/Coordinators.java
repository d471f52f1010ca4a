package io.kvtier.client;

import io.grpc.Channel;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.AbstractStub;
import io.kvtier.KvtierException;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.LeaderTrailer;
import io.kvtier.rpc.Statuses;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * The coordinators of a cluster, of which one leads: a call goes to the one that led last. One that
 * does not lead names the one that does; one that does not answer is passed over for the next. So a
 * call is tried until its time is over, and must be one that may be sent twice. A single
 * coordinator that does not answer is not tried again. Owns its channels; thread-safe.
 */
public final class Coordinators implements AutoCloseable {
  private static final int TARGETS_MAX = 16;
  private static final long BACK_OFF_MIN_NS = Duration.ofMillis(20).toNanos();
  private static final long BACK_OFF_MAX_NS = Duration.ofMillis(200).toNanos();

  private final List<String> targets;
  private final Map<String, ManagedChannel> channels = new ConcurrentHashMap<>();
  private volatile String current;

  private Coordinators(List<String> targets) {
    this.targets = targets;
    this.current = targets.getFirst();
  }

  /**
   * Coordinators by their gRPC targets; nothing is sent until the first call.
   *
   * @param targets host:port of one or several, with commas between them
   * @throws KvtierException INVALID
   */
  public static Coordinators at(String targets) {
    List<String> all = new ArrayList<>();
    for (String target : targets.split(",", -1)) {
      all.add(target.strip());
    }
    if (all.size() > TARGETS_MAX) {
      throw KvtierException.invalid(
          "%d coordinators are given; at most %d may be", all.size(), TARGETS_MAX);
    }
    Coordinators coordinators = new Coordinators(List.copyOf(all));
    try {
      // Refuses a wrong target now and not with the first call.
      all.forEach(target -> {
        var _ = coordinators.channel(target);
      });
      return coordinators;
    } catch (RuntimeException e) {
      coordinators.close();
      throw e;
    }
  }

  /** The coordinators as they were given. */
  public String targets() {
    return String.join(",", targets);
  }

  /**
   * Calls the coordinator that leads.
   *
   * @param stubOf makes the stub on a channel
   * @param timeout in all
   * @param call is made once or several times; its stub has a deadline
   * @throws KvtierException as the call was refused; UNAVAILABLE or DEADLINE if none that leads was
   *     found in time
   */
  public <S extends AbstractStub<S>, R> R call(
      Function<Channel, S> stubOf, Duration timeout, Function<S, R> call) {
    long startNs = System.nanoTime();
    for (int failures = 0; ; failures++) {
      String target = current;
      long leftNs = timeout.toNanos() - (System.nanoTime() - startNs);
      try {
        S stub = stubOf.apply(channel(target));
        return call.apply(stub.withDeadlineAfter(Math.max(1, leftNs), TimeUnit.NANOSECONDS));
      } catch (StatusRuntimeException e) {
        KvtierException refusal = Statuses.fromStatus(e, "the coordinator at " + target);
        Optional<String> next = next(e, target);
        if (next.isEmpty()) {
          throw refusal;
        }
        boolean sameAgain = next.get().equals(target);
        current = next.get();
        // A named leader is asked at once, but not for ever: two may name each other.
        long waitNs = failures == 0 && !sameAgain ? 0 : backOffNs(failures);
        if (timeout.toNanos() - (System.nanoTime() - startNs) <= waitNs || !pause(waitNs)) {
          throw refusal;
        }
        channel(current).resetConnectBackoff();
      }
    }
  }

  /** Whom to ask next; empty if the answer stands. */
  private Optional<String> next(StatusRuntimeException thrown, String target) {
    if (!Statuses.isUnavailable(thrown.getStatus())) {
      return Optional.empty();
    }
    Optional<String> leader = LeaderTrailer.of(thrown);
    if (leader.isEmpty()) {
      return targets.size() == 1 && targets.contains(target)
          ? Optional.empty()
          : Optional.of(following(target));
    }
    return switch (leader.get()) {
      case LeaderTrailer.SELF -> Optional.empty();
      case "" -> Optional.of(following(target));
      default -> leader.filter(Channels::isTarget).or(() -> Optional.of(following(target)));
    };
  }

  private String following(String target) {
    return targets.get((targets.indexOf(target) + 1) % targets.size());
  }

  private ManagedChannel channel(String target) {
    return channels.computeIfAbsent(target, Channels::open);
  }

  /** Connects again at once, if a connection is broken, and not after the channel's back-off. */
  void wake() {
    channel(current).resetConnectBackoff();
  }

  private static long backOffNs(int failures) {
    return Math.min(BACK_OFF_MAX_NS, BACK_OFF_MIN_NS << Math.min(failures, 10));
  }

  /** Waits; false if the thread was interrupted meanwhile. */
  private static boolean pause(long waitNs) {
    try {
      TimeUnit.NANOSECONDS.sleep(waitNs);
      return true;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  @Override
  public void close() {
    channels.values().forEach(Channels::close);
  }
}
