package io.kvtier.gpuworker.grpc;

import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.session.SessionTable;
import io.kvtier.gpuworker.session.StepResult;
import io.kvtier.gpuworker.session.TokenStep;
import io.kvtier.gpuworker.session.WorkerSession;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AcceptedPath;
import io.kvtier.v1.DecodeAccept;
import io.kvtier.v1.DecodeRequest;
import io.kvtier.v1.DecodeResponse;
import io.kvtier.v1.DecodeStep;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.StepStats;
import io.kvtier.v1.StreamOpen;
import io.kvtier.v1.TokenRange;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** One Decode stream. */
final class DecodeHandler extends ReplyStream<DecodeRequest, DecodeResponse> {
  private static final int STEP_TOKENS_MAX = 64;

  private final SessionTable sessions;
  private final WorkerMeters meters;
  private @Nullable StreamOpen open;

  DecodeHandler(
      SessionTable sessions, WorkerMeters meters, StreamObserver<DecodeResponse> responses) {
    super(responses);
    this.sessions = sessions;
    this.meters = meters;
  }

  @Override
  boolean isSilent(DecodeRequest request) {
    return request.hasOpen() && open == null;
  }

  @Override
  void serveSilently(DecodeRequest request) {
    var _ = sessions.require(request.getOpen().getSessionId(), request.getOpen().getEpoch());
    open = request.getOpen();
  }

  @Override
  DecodeResponse serve(DecodeRequest request) {
    StreamOpen named = open;
    if (named == null) {
      throw openFirst();
    }
    // Asked for each message anew: the session may have been closed or fenced meanwhile.
    WorkerSession session = sessions.require(named.getSessionId(), named.getEpoch());
    return session.inEpoch(
        named.getEpoch(),
        () ->
            switch (request.getPartCase()) {
              case OPEN -> throw openOnce();
              case STEP -> step(session, request.getStep());
              case ACCEPT -> accept(session, request.getAccept());
              case PART_NOT_SET -> throw partMissing();
            });
  }

  private DecodeResponse step(WorkerSession session, DecodeStep step) {
    Geometry geometry = session.info().getGeometry();
    int qHeads = geometry.getQHeads();
    int kvHeads = geometry.getKvHeads();
    int headDim = geometry.getHeadDim();
    int tokens = Tensors.rows("queries", step.getQueries(), STEP_TOKENS_MAX, qHeads, headDim);
    Tensors.requireDtype("keys", step.getKeys(), geometry.getKvDtype());
    Tensors.requireDtype("values", step.getValues(), geometry.getKvDtype());
    float[] queries = Tensors.toFloats("queries", step.getQueries(), tokens, qHeads, headDim);
    float[] keys = Tensors.toFloats("keys", step.getKeys(), tokens, kvHeads, headDim);
    float[] values = Tensors.toFloats("values", step.getValues(), tokens, kvHeads, headDim);
    float[] hint =
        step.hasHint()
            ? Tensors.toFloats("hint", step.getHint(), tokens, qHeads, headDim)
            : new float[0];
    TokenStep asked =
        new TokenStep(
            step.getLayer(),
            step.getPosition(),
            tokens,
            queries,
            keys,
            values,
            hint,
            parents(step, tokens),
            step.hasAccepted() ? nodes(step.getAccepted()) : null);
    StepResult result;
    try {
      result = session.step(asked);
    } catch (KvtierException e) {
      return missing(session, asked, e);
    }
    meters.stepped(tokens, result);
    Dtype dtype = step.getQueries().getDtype();
    return DecodeResponse.newBuilder()
        .setLayer(step.getLayer())
        .setPosition(step.getPosition())
        .setOutput(Tensors.of(dtype, result.output(), tokens, qHeads, headDim))
        .setLse(Tensors.of(Dtype.DTYPE_FP32, result.lse(), tokens, qHeads))
        .setDurableTokens(session.durableTokens(step.getLayer()))
        .setStats(stats(result))
        .setBytes(session.bytes(result.deviceBytes()))
        .build();
  }

  /** A step that needs pages which no tier has is answered by what is to be sent again. */
  private static DecodeResponse missing(
      WorkerSession session, TokenStep asked, KvtierException refusal) {
    if (refusal.code() != Code.LOST) {
      throw refusal;
    }
    List<TokenRange> missing = session.missing(asked.layer());
    if (missing.isEmpty()) {
      throw refusal;
    }
    return DecodeResponse.newBuilder()
        .setLayer(asked.layer())
        .setPosition(asked.position())
        .addAllMissing(missing)
        .build();
  }

  private static int[] parents(DecodeStep step, int tokens) {
    int count = step.getParentsCount();
    if (count != 0 && count != tokens) {
      throw KvtierException.invalid(
          "parents has %d entries; it must have none, or one a token, %d", count, tokens);
    }
    return step.getParentsList().stream().mapToInt(Integer::intValue).toArray();
  }

  private static int[] nodes(AcceptedPath accepted) {
    if (accepted.getNodesCount() > STEP_TOKENS_MAX) {
      throw KvtierException.invalid(
          "accepted has %d tokens; it must have 0..%d", accepted.getNodesCount(), STEP_TOKENS_MAX);
    }
    return accepted.getNodesList().stream().mapToInt(Integer::intValue).toArray();
  }

  private static DecodeResponse accept(WorkerSession session, DecodeAccept accept) {
    int tokens = session.accept(accept.getLayer(), nodes(accept.getAccepted()));
    return DecodeResponse.newBuilder()
        .setLayer(accept.getLayer())
        .setPosition(tokens)
        .setDurableTokens(session.durableTokens(accept.getLayer()))
        .setBytes(session.bytes(session.deviceBytes()))
        .build();
  }

  private static StepStats stats(StepResult result) {
    return StepStats.newBuilder()
        .setSelectedTokens(result.selected())
        .setSectionsHit(result.hit())
        .setSectionsFetched(result.fetched())
        .setSectionsPrefetched(result.prefetched())
        .setBytesFetched(result.bytesFetched())
        .setComputeNs(result.computeNs())
        .setUnhiddenNs(result.unhiddenNs())
        .setSectionsNear(result.near())
        .build();
  }
}
