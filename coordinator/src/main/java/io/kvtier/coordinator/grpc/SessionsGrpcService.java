package io.kvtier.coordinator.grpc;

import static io.kvtier.KvtierException.requireInRange;

import io.grpc.Context;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.lead.Caller;
import io.kvtier.coordinator.lead.Lead;
import io.kvtier.coordinator.lead.Prompts;
import io.kvtier.coordinator.lead.SessionCloser;
import io.kvtier.coordinator.lead.SessionLimits;
import io.kvtier.coordinator.lead.SessionMover;
import io.kvtier.coordinator.lead.SessionOpener;
import io.kvtier.coordinator.metrics.CoordinatorMeters;
import io.kvtier.page.PrefixChain;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.Tenant;
import io.kvtier.v1.CloseRequest;
import io.kvtier.v1.CloseResponse;
import io.kvtier.v1.ForkRequest;
import io.kvtier.v1.GetSessionRequest;
import io.kvtier.v1.ListSessionsRequest;
import io.kvtier.v1.ListSessionsResponse;
import io.kvtier.v1.LookupPrefixRequest;
import io.kvtier.v1.LookupPrefixResponse;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.PinRequest;
import io.kvtier.v1.PinResponse;
import io.kvtier.v1.ResumeRequest;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionRecord;
import io.kvtier.v1.SessionsGrpc.SessionsImplBase;
import io.kvtier.v1.UnpinRequest;
import io.kvtier.v1.UnpinResponse;
import io.kvtier.v1.WatchSessionsRequest;
import io.kvtier.v1.WatchSessionsResponse;
import java.util.List;
import java.util.UUID;
import java.util.function.Supplier;

/**
 * The Sessions service (sessions.proto). A session becomes visible only once its worker has
 * accepted it, and is gone from here before its worker is told to free it. Handlers block on
 * workers, so they need a thread each.
 */
public final class SessionsGrpcService extends SessionsImplBase {
  private final Lead lead;
  private final Prompts prompts;
  private final SessionOpener opener;
  private final SessionMover mover;
  private final SessionCloser closer;
  private final SessionWatch watch;
  private final PinKeeper pins;
  private final Replies replies;

  public SessionsGrpcService(
      Lead lead,
      WorkerClients workers,
      TierWatch tiers,
      PinKeeper pins,
      Supplier<UUID> ids,
      CoordinatorMeters meters) {
    this.lead = lead;
    this.prompts = new Prompts(tiers);
    this.opener = new SessionOpener(lead, workers, prompts, ids, meters);
    this.mover = new SessionMover(lead, workers, prompts, meters);
    this.closer = new SessionCloser(lead, workers, meters);
    this.watch = new SessionWatch(lead);
    this.pins = pins;
    this.replies = new Replies(meters);
  }

  @Override
  public void open(OpenRequest request, StreamObserver<Session> observer) {
    replies.answer(observer, () -> told(opener.open(request, caller())));
  }

  @Override
  public void fork(ForkRequest request, StreamObserver<Session> observer) {
    replies.answer(observer, () -> told(opener.fork(request, caller())));
  }

  @Override
  public void close(CloseRequest request, StreamObserver<CloseResponse> observer) {
    replies.answer(observer, () -> close(request));
  }

  @Override
  public void get(GetSessionRequest request, StreamObserver<Session> observer) {
    replies.answer(
        observer,
        () ->
            told(lead.callConfirmed(view -> view.state().sessions().get(request.getSessionId()))));
  }

  @Override
  public void list(ListSessionsRequest request, StreamObserver<ListSessionsResponse> observer) {
    replies.answer(observer, this::list);
  }

  @Override
  public void lookupPrefix(
      LookupPrefixRequest request, StreamObserver<LookupPrefixResponse> observer) {
    replies.answer(observer, () -> lookupPrefix(request));
  }

  @Override
  public void resume(ResumeRequest request, StreamObserver<Session> observer) {
    replies.answer(observer, () -> told(mover.resume(request, caller())));
  }

  @Override
  public void pin(PinRequest request, StreamObserver<PinResponse> observer) {
    replies.answer(observer, () -> pins.pin(request));
  }

  @Override
  public void unpin(UnpinRequest request, StreamObserver<UnpinResponse> observer) {
    replies.answer(observer, () -> pins.unpin(request));
  }

  @Override
  public void watch(WatchSessionsRequest request, StreamObserver<WatchSessionsResponse> observer) {
    watch.serve(request, (ServerCallStreamObserver<WatchSessionsResponse>) observer);
  }

  /** A session as callers are told of it. */
  private static Session told(SessionRecord record) {
    return record.getLayerTokensCount() == 0
        ? record.getSession()
        : record.getSession().toBuilder().addAllLayerTokens(record.getLayerTokensList()).build();
  }

  private LookupPrefixResponse lookupPrefix(LookupPrefixRequest request) {
    SessionLimits.requireGeometry(request.hasGeometry(), request.getGeometry());
    requireInRange("length of token_ids", request.getTokenIdsCount(), 1, GeometryLimits.TOKENS_MAX);
    PrefixChain chain =
        Prompts.chain(
            Tenant.current(),
            request.getGeometry(),
            request.getTokenIdsCount(),
            request::getTokenIds);
    return LookupPrefixResponse.newBuilder()
        .setTokens(prompts.storedTokens(chain, request.getGeometry()))
        .build();
  }

  private CloseResponse close(CloseRequest request) {
    closer.close(request);
    return CloseResponse.getDefaultInstance();
  }

  /** Who the call that is being served is for. */
  private static Caller caller() {
    return new Caller(Tenant.current(), Context.current()::isCancelled);
  }

  private ListSessionsResponse list() {
    List<Session> told =
        lead.callConfirmed(view -> view.state().sessions().list()).stream()
            .map(SessionsGrpcService::told)
            .toList();
    ListSessionsResponse response = ListSessionsResponse.newBuilder().addAllSessions(told).build();
    if (response.getSerializedSize() > Endpoint.MESSAGE_BYTES_MAX) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "the list of %d sessions takes %d bytes and a message holds %d; get the sessions one by"
                  .formatted(
                      response.getSessionsCount(),
                      response.getSerializedSize(),
                      Endpoint.MESSAGE_BYTES_MAX)
              + " one");
    }
    return response;
  }
}
