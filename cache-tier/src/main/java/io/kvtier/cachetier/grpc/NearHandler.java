package io.kvtier.cachetier.grpc;

import static io.kvtier.KvtierException.invalid;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.kvtier.cachetier.Read.MissReason;
import io.kvtier.cachetier.near.NearPool;
import io.kvtier.cachetier.near.NearRequest;
import io.kvtier.cachetier.near.NearResult;
import io.kvtier.rpc.Statuses;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AttendRequest;
import io.kvtier.v1.AttendResponse;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Miss;
import io.kvtier.v1.NearQueries;
import io.kvtier.v1.PageMiss;
import io.kvtier.v1.ScorePlanes;
import io.kvtier.v1.ScoreRequest;
import io.kvtier.v1.ScoreResponse;
import io.kvtier.v1.Tensor;
import io.kvtier.wire.PartialChecksum;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import java.util.function.Function;

/**
 * Score and Attend: wire messages to requests of the pool, and its results back, sent from its
 * threads. Refusals of a request itself are thrown, as the service's other calls do.
 */
public final class NearHandler {
  private static final float SCALE_MAX = 16;
  private static final int HEADS_DIMENSION = 0;
  private static final int GROUP_DIMENSION = 1;
  private static final int HEAD_DIM_DIMENSION = 2;

  private final NearPool pool;

  public NearHandler(NearPool pool) {
    this.pool = pool;
  }

  void score(ScoreRequest request, StreamObserver<ScoreResponse> out) {
    int planes = planes(request.getPlanes());
    NearRequest near = request(request.getKeysList(), request.getQueries(), planes, new long[0]);
    submit(near, out, NearHandler::scores);
  }

  void attend(AttendRequest request, StreamObserver<AttendResponse> out) {
    long[] tokens = new long[Math.min(request.getTokensCount(), NearRequest.PAGES_MAX + 1)];
    for (int i = 0; i < tokens.length; i++) {
      tokens[i] = request.getTokens(i);
    }
    NearRequest near = request(request.getKeysList(), request.getQueries(), 0, tokens);
    submit(near, out, result -> partial(near, result));
  }

  private <R> void submit(
      NearRequest request, StreamObserver<R> out, Function<NearResult, R> toMessage) {
    ServerCallStreamObserver<R> call = (ServerCallStreamObserver<R>) out;
    // With a handler, answering a call that was cancelled meanwhile is no error.
    call.setOnCancelHandler(() -> {});
    pool.submit(
        request,
        call::isCancelled,
        result -> {
          out.onNext(toMessage.apply(result));
          out.onCompleted();
        },
        failure -> out.onError(Statuses.toStatus(failure)));
  }

  private static int planes(ScorePlanes planes) {
    return switch (planes) {
      case SCORE_PLANES_SIGN -> 1;
      case SCORE_PLANES_SKETCH -> 2;
      case SCORE_PLANES_ALL -> 4;
      case SCORE_PLANES_UNSPECIFIED, UNRECOGNIZED ->
          throw invalid("planes is %s; it must be one of SIGN, SKETCH, ALL", planes);
    };
  }

  private static NearRequest request(
      List<ByteString> keys, NearQueries queries, int planes, long[] tokens) {
    Tensor tensor = queries.getQueries();
    int heads = queries.getKvHeadsCount();
    if (tensor.getShapeCount() != HEAD_DIM_DIMENSION + 1
        || tensor.getShape(HEADS_DIMENSION) != heads) {
      throw invalid(
          "queries has a shape of %d dimensions for %d kv_heads; it must have [kv_heads][group]"
              + "[head_dim]",
          tensor.getShapeCount(), heads);
    }
    int group = tensor.getShape(GROUP_DIMENSION);
    int headDim = tensor.getShape(HEAD_DIM_DIMENSION);
    NearRequest.requireShape(heads, group, headDim);
    float[] rows = Tensors.toFloats("queries", tensor, heads, group, headDim);
    scale(rows, queries.getScale(), headDim);
    return new NearRequest(
        PageRequests.keys(keys),
        queries.getKvHeadsList().stream().mapToInt(Integer::intValue).toArray(),
        group,
        headDim,
        rows,
        planes,
        tokens);
  }

  /** The kernels divide by √headDim themselves; any other scale is made up for beforehand. */
  private static void scale(float[] rows, float scale, int headDim) {
    if (scale == 0 || scale == (float) (1 / Math.sqrt(headDim))) {
      return;
    }
    if (!(scale > 0 && scale <= SCALE_MAX)) {
      throw invalid("scale is %s; it must be above 0 and at most %s", scale, SCALE_MAX);
    }
    float factor = (float) (scale * Math.sqrt(headDim));
    for (int i = 0; i < rows.length; i++) {
      rows[i] *= factor;
    }
  }

  private static ScoreResponse scores(NearResult result) {
    ByteBuffer bytes =
        ByteBuffer.allocate(result.values().length * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    bytes.asFloatBuffer().put(result.values());
    ScoreResponse.Builder response =
        // The array is ours alone and never written again.
        ScoreResponse.newBuilder().setScores(UnsafeByteOperations.unsafeWrap(bytes.array()));
    result.misses().forEach(miss -> response.addMisses(miss(miss)));
    return response.build();
  }

  private static AttendResponse partial(NearRequest request, NearResult result) {
    AttendResponse.Builder response =
        AttendResponse.newBuilder()
            .setOutput(
                Tensors.of(
                    Dtype.DTYPE_FP32,
                    result.values(),
                    request.kvHeads().length,
                    request.group(),
                    request.headDim()))
            .setTokens(result.tokens());
    for (float lse : result.lse()) {
      response.addLse(lse);
    }
    result.misses().forEach(miss -> response.addMisses(miss(miss)));
    return response
        .setChecksum(PartialChecksum.of(response.getOutput().getData(), response.getLseList()))
        .build();
  }

  private static PageMiss miss(NearResult.PageMiss miss) {
    return PageMiss.newBuilder().setIndex(miss.index()).setMiss(miss(miss.reason())).build();
  }

  private static Miss miss(MissReason reason) {
    return switch (reason) {
      case ABSENT -> Miss.MISS_ABSENT;
      case CORRUPT -> Miss.MISS_CORRUPT;
    };
  }
}
