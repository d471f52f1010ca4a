package io.kvtier.integration;

import io.grpc.ManagedChannel;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import io.kvtier.cachetier.CacheTierConfig;
import io.kvtier.client.KvtierClient;
import io.kvtier.coordinator.CoordinatorConfig;
import io.kvtier.deploy.service.AllInOne;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Closing;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.v1.AttentionGrpc;
import io.kvtier.v1.ClusterGrpc;
import io.kvtier.v1.DecodeRequest;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.ListSessionsRequest;
import io.kvtier.v1.MembershipRequest;
import io.kvtier.v1.MembershipResponse;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.PrefillRequest;
import io.kvtier.v1.PrefillResponse;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionsGrpc;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/** All services in this process, with raw stubs beside the client. Every call has a deadline. */
final class Loopback implements AutoCloseable {
  static final long DEADLINE_SECONDS = 10;

  private final Closing closing = new Closing();
  private final AllInOne service;
  private ManagedChannel coordinator;
  private ManagedChannel worker;
  private ManagedChannel tier;
  final KvtierClient client;

  /** What a refused call must leave as it was. */
  record State(
      long deviceBytes, long tierBytes, List<Session> sessions, MembershipResponse members) {}

  Loopback() {
    service =
        closing.add(
            AllInOne.start(
                CoordinatorConfig.defaults(),
                new CacheTierConfig(EndpointConfig.loopback(), 64L << 20, Optional.empty()),
                64L << 20));
    coordinator = Channels.open(service.coordinator().target());
    worker = Channels.open(service.worker().target());
    tier = Channels.open(service.tier().tier().target());
    closing.add(this::disconnect);
    client = closing.add(KvtierClient.connect(service.coordinator().target()));
  }

  /** New connections for the raw stubs: one call's mishap must not be the next one's. */
  void reconnect() {
    disconnect();
    coordinator = Channels.open(service.coordinator().target());
    worker = Channels.open(service.worker().target());
    tier = Channels.open(service.tier().tier().target());
  }

  private void disconnect() {
    Channels.close(coordinator);
    Channels.close(worker);
    Channels.close(tier);
  }

  SessionsGrpc.SessionsBlockingV2Stub sessions() {
    return SessionsGrpc.newBlockingV2Stub(coordinator)
        .withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS);
  }

  ClusterGrpc.ClusterBlockingV2Stub cluster() {
    return ClusterGrpc.newBlockingV2Stub(coordinator)
        .withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS);
  }

  PagesGrpc.PagesBlockingV2Stub pages() {
    return PagesGrpc.newBlockingV2Stub(tier).withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS);
  }

  AttentionGrpc.AttentionBlockingV2Stub attention() {
    return AttentionGrpc.newBlockingV2Stub(worker)
        .withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS);
  }

  /** One prefill stream; the last answer. */
  PrefillResponse prefill(PrefillRequest... requests) throws Exception {
    return exchange(attention().prefill(), List.of(requests)).getLast();
  }

  /** One decode stream; its answers. The open has none of its own. */
  List<DecodeResponse> decode(DecodeRequest... requests) throws Exception {
    BlockingClientCall<DecodeRequest, DecodeResponse> call = attention().decode();
    for (DecodeRequest request : requests) {
      boolean _ = call.write(request);
    }
    call.halfClose();
    return drain(call);
  }

  /** Sends each request once the one before has been answered, then ends the stream. */
  static <Q, R> List<R> exchange(BlockingClientCall<Q, R> call, List<Q> requests)
      throws InterruptedException, StatusException {
    List<R> responses = new ArrayList<>();
    for (Q request : requests) {
      // False when the peer has ended the stream: reading tells why.
      boolean _ = call.write(request);
      responses.add(call.read());
    }
    call.halfClose();
    responses.addAll(drain(call));
    return responses;
  }

  /** All that a peer still sends. */
  static <R> List<R> drain(BlockingClientCall<?, R> call)
      throws InterruptedException, StatusException {
    List<R> responses = new ArrayList<>();
    while (call.hasNext()) {
      responses.add(call.read());
    }
    return responses;
  }

  long deviceBytes() {
    return service.worker().deviceBytesUsed();
  }

  long tierBytes() {
    return service.tier().tier().bytesUsed();
  }

  State state() throws StatusException {
    return new State(
        deviceBytes(),
        tierBytes(),
        sessions().list(ListSessionsRequest.getDefaultInstance()).getSessionsList(),
        cluster().membership(MembershipRequest.getDefaultInstance()));
  }

  @Override
  public void close() {
    closing.close();
  }
}
