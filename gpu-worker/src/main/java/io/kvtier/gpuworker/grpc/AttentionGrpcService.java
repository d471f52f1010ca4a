package io.kvtier.gpuworker.grpc;

import static io.kvtier.KvtierException.requireInRange;

import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.gpuworker.session.PlanMaker;
import io.kvtier.gpuworker.session.Prefix;
import io.kvtier.gpuworker.session.SessionReader;
import io.kvtier.gpuworker.session.SessionTable;
import io.kvtier.gpuworker.session.WorkerSession;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.AttentionGrpc;
import io.kvtier.v1.DecodeRequest;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.DetachRequest;
import io.kvtier.v1.DetachResponse;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.GatherRequest;
import io.kvtier.v1.GatherResponse;
import io.kvtier.v1.GatheredHead;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.LoadRequest;
import io.kvtier.v1.LoadResponse;
import io.kvtier.v1.PrefillRequest;
import io.kvtier.v1.PrefillResponse;

/**
 * The Attention service: wire types in, sessions' calls out. Handlers may block; they run on
 * threads of their own.
 */
public final class AttentionGrpcService extends AttentionGrpc.AttentionImplBase {
  private static final int GATHER_TOKENS_MAX = 4096;

  private final SessionTable sessions;
  private final PlanMaker planMaker;
  private final WorkerMeters meters;

  public AttentionGrpcService(SessionTable sessions, PlanMaker planMaker, WorkerMeters meters) {
    this.sessions = sessions;
    this.planMaker = planMaker;
    this.meters = meters;
  }

  @Override
  public StreamObserver<PrefillRequest> prefill(StreamObserver<PrefillResponse> responses) {
    return new PrefillHandler(sessions, planMaker, meters, responses);
  }

  @Override
  public StreamObserver<DecodeRequest> decode(StreamObserver<DecodeResponse> responses) {
    return new DecodeHandler(sessions, meters, responses);
  }

  @Override
  public void gather(GatherRequest request, StreamObserver<GatherResponse> responses) {
    WorkerSession session = sessions.require(request.getSessionId(), request.getEpoch());
    requireInRange(
        "tokens_max", Integer.toUnsignedLong(request.getTokensMax()), 1, GATHER_TOKENS_MAX);
    Geometry geometry = session.info().getGeometry();
    float[] query =
        Tensors.toFloats("query", request.getQuery(), geometry.getQHeads(), geometry.getHeadDim());
    GatherResponse.Builder response = GatherResponse.newBuilder();
    for (SessionReader.HeadRows rows :
        session.inEpoch(
            request.getEpoch(),
            () ->
                session.gather(
                    request.getLayer(), query, request.getTokensMax(), request.getAsPlanned()))) {
      GatheredHead.Builder head = GatheredHead.newBuilder();
      for (int position : rows.positions()) {
        head.addPositions(position);
      }
      int n = rows.positions().length;
      head.setKeys(Tensors.of(Dtype.DTYPE_BF16, rows.keys(), n, geometry.getHeadDim()));
      head.setValues(Tensors.of(Dtype.DTYPE_BF16, rows.values(), n, geometry.getHeadDim()));
      response.addHeads(head);
    }
    responses.onNext(response.build());
    responses.onCompleted();
  }

  @Override
  public void load(LoadRequest request, StreamObserver<LoadResponse> responses) {
    WorkerSession session = sessions.require(request.getSessionId(), request.getEpoch());
    Geometry geometry = session.info().getGeometry();
    ReadyGate gate = new ReadyGate((ServerCallStreamObserver<LoadResponse>) responses);
    session.load(
        request.getLayer(),
        request.getPosition(),
        request.getTokens(),
        (position, tokens, keys, values) -> {
          gate.await();
          responses.onNext(
              LoadResponse.newBuilder()
                  .setPosition(position)
                  .setKeys(bf16Rows(keys, tokens, geometry))
                  .setValues(bf16Rows(values, tokens, geometry))
                  .build());
        });
    responses.onCompleted();
  }

  private static io.kvtier.v1.Tensor bf16Rows(float[] rows, int tokens, Geometry geometry) {
    return Tensors.of(Dtype.DTYPE_BF16, rows, tokens, geometry.getKvHeads(), geometry.getHeadDim());
  }

  @Override
  public void attach(AttachRequest request, StreamObserver<AttachResponse> responses) {
    if (!request.hasSession()) {
      throw KvtierException.invalid("session is missing; it must be set");
    }
    if (request.getPrefix().getHashes().size() > 0 && !request.getForkOf().isEmpty()) {
      throw KvtierException.invalid("prefix is set beside fork_of; one of them may be");
    }
    if (request.getResume() && !request.getForkOf().isEmpty()) {
      throw KvtierException.invalid("resume is set beside fork_of; one of them may be");
    }
    Prefix prefix = Prefix.of(request.getPrefix(), request.getSession());
    responses.onNext(attached(request, prefix));
    responses.onCompleted();
  }

  private AttachResponse attached(AttachRequest request, Prefix prefix) {
    AttachResponse.Builder response = AttachResponse.newBuilder();
    if (request.getResume()) {
      for (int tokens : sessions.resume(request.getSession(), prefix)) {
        response.addLayerTokens(tokens);
      }
      return response.build();
    }
    int tokens = sessions.attach(request.getSession(), request.getForkOf(), prefix);
    return request.getForkOf().isEmpty()
        ? response.setReusedTokens(tokens).build()
        : response.setSharedTokens(tokens).build();
  }

  @Override
  public void detach(DetachRequest request, StreamObserver<DetachResponse> responses) {
    sessions.detach(request.getSessionId(), request.getEpoch(), request.getKeepPages());
    responses.onNext(DetachResponse.getDefaultInstance());
    responses.onCompleted();
  }
}
