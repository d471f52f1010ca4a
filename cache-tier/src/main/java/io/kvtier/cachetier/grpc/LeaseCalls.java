package io.kvtier.cachetier.grpc;

import static io.kvtier.KvtierException.requireInRange;

import com.google.protobuf.ByteString;
import io.grpc.stub.StreamObserver;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.page.PageKey;
import io.kvtier.v1.LeaseRequest;
import io.kvtier.v1.LeaseResponse;
import io.kvtier.v1.ReleaseRequest;
import io.kvtier.v1.ReleaseResponse;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** The calls of the Pages service that are about leases. */
final class LeaseCalls {
  private static final long TTL_MS_MAX = TimeUnit.HOURS.toMillis(1);

  private final PageCache cache;

  LeaseCalls(PageCache cache) {
    this.cache = cache;
  }

  void lease(LeaseRequest request, StreamObserver<LeaseResponse> out) {
    requireInRange("epoch", request.getEpoch(), 0, Long.MAX_VALUE);
    requireInRange("ttl_ms", request.getTtlMs(), 1, TTL_MS_MAX);
    PageCache.Lease lease =
        cache.lease(
            request.getOwner(),
            request.getEpoch(),
            request.getLeaseId(),
            TimeUnit.MILLISECONDS.toNanos(request.getTtlMs()),
            keys(request.getKeysList()));
    LeaseResponse.Builder response =
        LeaseResponse.newBuilder()
            .setLeaseId(lease.id())
            .setExpiresInMs(TimeUnit.NANOSECONDS.toMillis(lease.expiresInNs()));
    for (boolean stored : lease.stored()) {
      response.addStored(stored);
    }
    out.onNext(response.build());
    out.onCompleted();
  }

  void release(ReleaseRequest request, StreamObserver<ReleaseResponse> out) {
    requireInRange("epoch", request.getEpoch(), 0, Long.MAX_VALUE);
    cache.release(request.getOwner(), request.getEpoch(), keys(request.getKeysList()));
    out.onNext(ReleaseResponse.getDefaultInstance());
    out.onCompleted();
  }

  /** Unlike in other calls there may be none. */
  private static List<PageKey> keys(List<ByteString> keys) {
    return keys.isEmpty() ? List.of() : PageRequests.keys(keys);
  }
}
