package io.kvtier.gpuworker.grpc;

import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.gpuworker.session.PlanMaker;
import io.kvtier.gpuworker.session.SessionTable;
import io.kvtier.gpuworker.session.WorkerSession;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.KvChunk;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PrefillFinish;
import io.kvtier.v1.PrefillRequest;
import io.kvtier.v1.PrefillResponse;
import io.kvtier.v1.QueryWindow;
import io.kvtier.v1.StreamOpen;
import org.jspecify.annotations.Nullable;

/** One Prefill stream. */
final class PrefillHandler extends ReplyStream<PrefillRequest, PrefillResponse> {
  private static final int CHUNK_TOKENS_MAX = 4096;
  private static final int WINDOW_MAX = 64;

  private final SessionTable sessions;
  private final PlanMaker planMaker;
  private final WorkerMeters meters;
  private @Nullable StreamOpen open;
  private boolean finished;

  PrefillHandler(
      SessionTable sessions,
      PlanMaker planMaker,
      WorkerMeters meters,
      StreamObserver<PrefillResponse> responses) {
    super(responses);
    this.sessions = sessions;
    this.planMaker = planMaker;
    this.meters = meters;
  }

  @Override
  PrefillResponse serve(PrefillRequest request) {
    if (finished) {
      throw KvtierException.precondition(
          "'finish' came already; it is a stream's last message, open a new stream to go on");
    }
    StreamOpen named = open;
    if (named == null) {
      if (!request.hasOpen()) {
        throw openFirst();
      }
      open = request.getOpen();
      WorkerSession session =
          sessions.require(request.getOpen().getSessionId(), request.getOpen().getEpoch());
      return acknowledge(session, 0, session.tokens(0)).build();
    }
    // Asked for each message anew: the session may have been closed or fenced meanwhile.
    WorkerSession session = sessions.require(named.getSessionId(), named.getEpoch());
    return session.inEpoch(
        named.getEpoch(),
        () ->
            switch (request.getPartCase()) {
              case OPEN -> throw openOnce();
              case CHUNK -> chunk(session, request.getChunk());
              case QUERIES -> queries(session, request.getQueries());
              case FINISH -> finish(session, request.getFinish());
              case PART_NOT_SET -> throw partMissing();
            });
  }

  private PrefillResponse chunk(WorkerSession session, KvChunk chunk) {
    Geometry geometry = session.info().getGeometry();
    int heads = geometry.getKvHeads();
    int headDim = geometry.getHeadDim();
    int tokens = Tensors.rows("keys", chunk.getKeys(), CHUNK_TOKENS_MAX, heads, headDim);
    Tensors.requireDtype("keys", chunk.getKeys(), geometry.getKvDtype());
    Tensors.requireDtype("values", chunk.getValues(), geometry.getKvDtype());
    float[] keys = Tensors.toFloats("keys", chunk.getKeys(), tokens, heads, headDim);
    float[] values = Tensors.toFloats("values", chunk.getValues(), tokens, heads, headDim);
    int layer = chunk.getLayer();
    int have;
    if (chunk.getRepair()) {
      have = session.repair(layer, chunk.getPosition(), tokens, keys, values);
    } else {
      have = session.append(layer, chunk.getPosition(), tokens, keys, values);
      meters.appended(tokens);
    }
    return acknowledge(session, layer, have).build();
  }

  private PrefillResponse queries(WorkerSession session, QueryWindow window) {
    Geometry geometry = session.info().getGeometry();
    int heads = geometry.getQHeads();
    int headDim = geometry.getHeadDim();
    int rows = Tensors.rows("queries", window.getQueries(), WINDOW_MAX, heads, headDim);
    float[] queries = Tensors.toFloats("queries", window.getQueries(), rows, heads, headDim);
    int have = session.setQueries(window.getLayer(), rows, queries);
    return acknowledge(session, window.getLayer(), have).build();
  }

  private PrefillResponse finish(WorkerSession session, PrefillFinish finish) {
    Plan plan = session.finish(finish.getTokens(), finish.getAhead(), planMaker);
    finished = true;
    PrefillResponse.Builder answer =
        acknowledge(session, 0, finish.getTokens())
            .setPlan(plan)
            .setBytes(session.bytes(session.deviceBytes()));
    for (int layer = 0; layer < session.info().getGeometry().getLayers(); layer++) {
      answer.addLayerDurableTokens(session.durableTokens(layer));
    }
    return answer.build();
  }

  private static PrefillResponse.Builder acknowledge(WorkerSession session, int layer, int have) {
    return PrefillResponse.newBuilder()
        .setLayer(layer)
        .setReceivedTokens(have)
        .setDurableTokens(session.durableTokens(layer));
  }
}
