package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.NearPages.Attended;
import io.kvtier.client.NearPages.Queries;
import io.kvtier.page.PageKey;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AttendRequest;
import io.kvtier.v1.AttendResponse;
import io.kvtier.v1.Tensor;
import io.kvtier.wire.PartialChecksum;
import java.util.List;

/** Requests to attend near the pages, and their answers, verified. */
final class NearMessages {
  private static final int HEADS_DIMENSION = 0;
  private static final int GROUP_DIMENSION = 1;
  private static final int HEAD_DIM_DIMENSION = 2;

  private NearMessages() {}

  /**
   * A request.
   *
   * @param tokens empty: all tokens; else a bit set a key
   */
  static AttendRequest request(List<PageKey> keys, Queries queries, long[] tokens) {
    AttendRequest.Builder request = AttendRequest.newBuilder().setQueries(queries.toMessage());
    keys.forEach(key -> request.addKeys(key.toByteString()));
    for (long set : tokens) {
      request.addTokens(set);
    }
    return request.build();
  }

  /**
   * What an answer says.
   *
   * @throws KvtierException INTERNAL if it is not what the request asks for, LOST if its checksum
   *     is wrong
   */
  static Attended attended(AttendRequest request, AttendResponse response, String peer) {
    Tensor asked = request.getQueries().getQueries();
    int heads = asked.getShape(HEADS_DIMENSION);
    int group = asked.getShape(GROUP_DIMENSION);
    int headDim = asked.getShape(HEAD_DIM_DIMENSION);
    int rows = heads * group;
    if (response.getLseCount() != rows) {
      throw new KvtierException(
          Code.INTERNAL,
          "%s answered %d log-sum-exps; %d are due".formatted(peer, response.getLseCount(), rows));
    }
    if (PartialChecksum.of(response.getOutput().getData(), response.getLseList())
        != response.getChecksum()) {
      throw new KvtierException(Code.LOST, peer + " answered a partial of another checksum");
    }
    float[] lse = new float[rows];
    for (int i = 0; i < rows; i++) {
      lse[i] = response.getLse(i);
    }
    float[] output = Tensors.toFloats("output", response.getOutput(), heads, group, headDim);
    return new Attended(
        output,
        lse,
        response.getTokens(),
        response.getMissesList(),
        (long) request.getSerializedSize() + response.getSerializedSize(),
        1);
  }
}
