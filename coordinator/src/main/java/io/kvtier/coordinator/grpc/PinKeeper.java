package io.kvtier.coordinator.grpc;

import static io.kvtier.KvtierException.requireInRange;

import io.grpc.StatusRuntimeException;
import io.kvtier.KvtierException;
import io.kvtier.coordinator.lead.Lead;
import io.kvtier.coordinator.lead.Prompts;
import io.kvtier.coordinator.lead.SessionLimits;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.PrefixChain;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.Tenant;
import io.kvtier.v1.Command;
import io.kvtier.v1.EndPin;
import io.kvtier.v1.LeaseRequest;
import io.kvtier.v1.Node;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.PinRecord;
import io.kvtier.v1.PinRequest;
import io.kvtier.v1.PinResponse;
import io.kvtier.v1.ReleaseRequest;
import io.kvtier.v1.Role;
import io.kvtier.v1.UnpinRequest;
import io.kvtier.v1.UnpinResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * Keeps the pages of pinned prompts leased on the tiers that hold them. Each pin is an owner of a
 * lease; the term of the coordinator that leads is its fencing epoch, so that a new one takes it
 * over and a former one is refused. Thread-safe; {@link #keep} blocks on tiers.
 */
public final class PinKeeper implements AutoCloseable {
  private static final Logger LOG = Logger.getLogger(PinKeeper.class.getName());

  /** Longer than a cluster is without a coordinator that leads. */
  private static final Duration LEASE = Duration.ofSeconds(30);

  private static final long RENEW_NS = LEASE.toNanos() / 3;
  private static final long CALL_DEADLINE_MS = 2_000;
  private static final int KEYS_MAX = 1024;
  private static final long TTL_MIN_MS = 1_000;
  private static final long TTL_MAX_MS = Duration.ofDays(30).toMillis();

  private record Place(String pinId, String nodeId) {}

  /** What is leased at one place, and since when. */
  private static final class Held {
    final String target;
    final Set<PageKey> keys = new HashSet<>();
    long leaseId;
    long renewedNs;

    Held(String target) {
      this.target = target;
    }
  }

  private final Lead lead;
  private final TierWatch tiers;
  private final Supplier<UUID> ids;
  private final WorkerChannels channels = new WorkerChannels(WorkerChannels.CHANNELS_MAX);
  private final Map<Place, Held> held = new HashMap<>();
  private long term = -1;

  public PinKeeper(Lead lead, TierWatch tiers, Supplier<UUID> ids) {
    this.lead = lead;
    this.tiers = tiers;
    this.ids = ids;
  }

  PinResponse pin(PinRequest request) {
    SessionLimits.requireGeometry(request.hasGeometry(), request.getGeometry());
    requireInRange(
        "length of token_ids",
        request.getTokenIdsCount(),
        PageLayout.TOKENS,
        GeometryLimits.TOKENS_MAX);
    requireInRange("ttl_ms", request.getTtlMs(), TTL_MIN_MS, TTL_MAX_MS);
    SessionLimits.checkRequestId(request.getRequestId());
    PrefixChain chain =
        Prompts.chain(
            Tenant.current(),
            request.getGeometry(),
            request.getTokenIdsCount(),
            request::getTokenIds);
    long deadlineMs = lead.call(Lead.View::nowMs) + request.getTtlMs();
    PinRecord pin =
        lead.submit(
                Command.newBuilder()
                    .setPin(
                        PinRecord.newBuilder()
                            .setPinId(ids.get().toString())
                            .setTenant(Tenant.current())
                            .setGeometry(request.getGeometry())
                            .setPrefixHashes(chain.toByteString())
                            .setDeadlineMs(deadlineMs)
                            .setRequestId(request.getRequestId())))
            .getPin();
    // So that the pages are safe when the answer comes, and not only a moment later.
    keep();
    return PinResponse.newBuilder()
        .setPinId(pin.getPinId())
        .setTokens(
            tiers
                    .find(
                        chain,
                        request.getGeometry().getLayers(),
                        GeometryLimits.codec(request.getGeometry()))
                    .pages()
                * PageLayout.TOKENS)
        .build();
  }

  UnpinResponse unpin(UnpinRequest request) {
    requireInRange("length of pin_id", request.getPinId().length(), 1, 64);
    var _ =
        lead.submit(
            Command.newBuilder()
                .setEndPin(
                    EndPin.newBuilder().setPinId(request.getPinId()).setTenant(Tenant.current())));
    keep();
    return UnpinResponse.getDefaultInstance();
  }

  /** Leases what is pinned and stored, and lets go of what no longer is pinned. */
  public synchronized void keep() {
    long now = lead.leadership().term();
    if (now != term) {
      term = now;
      held.clear();
    }
    Map<String, String> targets = new HashMap<>();
    List<PinRecord> pins =
        lead.call(view -> {
          view.state()
              .nodes()
              .nodes(Role.ROLE_TIER)
              .forEach((Node node) -> targets.put(node.getNodeId(), node.getTarget()));
          return view.state().pins().at(view.nowMs());
        });
    Set<Place> wanted = new HashSet<>();
    for (PinRecord pin : pins) {
      tiers
          .holders(PrefixChain.of(pin.getPrefixHashes()))
          .forEach((nodeId, keys) -> {
            String target = targets.get(nodeId);
            if (target != null) {
              Place place = new Place(pin.getPinId(), nodeId);
              wanted.add(place);
              lease(place, target, keys);
            }
          });
    }
    held.entrySet()
        .removeIf(entry -> {
          boolean over = !wanted.contains(entry.getKey());
          if (over) {
            release(entry.getKey(), entry.getValue());
          }
          return over;
        });
  }

  private void lease(Place place, String target, List<PageKey> keys) {
    Held there = held.get(place);
    if (there == null || !there.target.equals(target)) {
      there = new Held(target);
      held.put(place, there);
    }
    long nowNs = System.nanoTime();
    Held at = there;
    List<PageKey> missing =
        new ArrayList<>(keys.stream().filter(key -> !at.keys.contains(key)).toList());
    if (missing.isEmpty() && nowNs - there.renewedNs < RENEW_NS) {
      return;
    }
    try (WorkerChannels.Use use = channels.use(target)) {
      do {
        List<PageKey> part = missing.subList(0, Math.min(KEYS_MAX, missing.size()));
        LeaseRequest.Builder request =
            LeaseRequest.newBuilder()
                .setOwner(owner(place))
                .setEpoch(term)
                .setTtlMs(LEASE.toMillis())
                .setLeaseId(there.leaseId);
        part.forEach(key -> request.addKeys(key.toByteString()));
        there.leaseId = stub(use).lease(request.build()).getLeaseId();
        there.keys.addAll(part);
        part.clear();
      } while (!missing.isEmpty());
      there.renewedNs = nowNs;
    } catch (StatusRuntimeException | KvtierException e) {
      // The next round begins anew; what is leased until then stays so for a while.
      held.remove(place);
      LOG.log(
          Level.FINE,
          "pages of pin {0} could not be leased at {1}: {2}",
          new Object[] {place.pinId, target, e.getMessage()});
    }
  }

  private void release(Place place, Held there) {
    try (WorkerChannels.Use use = channels.use(there.target)) {
      var _ =
          stub(use)
              .release(ReleaseRequest.newBuilder().setOwner(owner(place)).setEpoch(term).build());
    } catch (StatusRuntimeException | KvtierException e) {
      LOG.log(
          Level.FINE,
          "pin {0} could not be ended at {1}, where its lease runs out by itself: {2}",
          new Object[] {place.pinId, there.target, e.getMessage()});
    }
  }

  private static PagesGrpc.PagesBlockingStub stub(WorkerChannels.Use use) {
    return PagesGrpc.newBlockingStub(use.channel())
        .withDeadlineAfter(CALL_DEADLINE_MS, TimeUnit.MILLISECONDS);
  }

  private static String owner(Place place) {
    return "pin:" + place.pinId;
  }

  @Override
  public void close() {
    channels.close();
  }
}
