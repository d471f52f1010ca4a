package io.kvtier.client;

import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Statuses;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AttendRequest;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.NearQueries;
import io.kvtier.v1.PageMiss;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.ScorePlanes;
import io.kvtier.v1.ScoreRequest;
import io.kvtier.v1.ScoreResponse;
import java.nio.ByteOrder;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * Has a tier node compute on its pages where they are, so that a query and a partial cross the
 * network in place of pages. From any thread; every call blocks until its answer or its deadline.
 * EXHAUSTED: the node has too much of this to do; fetch the pages instead, or call again.
 */
public final class NearPages implements AutoCloseable {
  /**
   * Queries of some KV heads.
   *
   * @param kvHeads rising
   * @param group q heads of each, 1..128
   * @param headDim as the pages have it
   * @param rows {@code [kvHeads][group][headDim]}, read only
   * @param scale of the scores, above 0, at most 16; 0: 1/√headDim
   */
  public record Queries(List<Integer> kvHeads, int group, int headDim, float[] rows, float scale) {
    /** Queries at the usual scale. */
    public Queries(List<Integer> kvHeads, int group, int headDim, float[] rows) {
      this(kvHeads, group, headDim, rows, 0);
    }

    NearQueries toMessage() {
      return NearQueries.newBuilder()
          .addAllKvHeads(kvHeads)
          .setQueries(Tensors.of(Dtype.DTYPE_FP32, rows, kvHeads.size(), group, headDim))
          .setScale(scale)
          .build();
    }
  }

  /**
   * Scores of tokens.
   *
   * @param values {@code [kvHeads][group][pages served][64]}; -∞ beyond a page's tokens
   * @param misses pages not served, by rising index; the others are in the order asked
   */
  public record Scores(float[] values, List<PageMiss> misses) {}

  /**
   * Partials over tokens.
   *
   * @param output {@code [kvHeads][group][headDim]}; zeros if no token was attended
   * @param lse {@code [kvHeads][group]}; -∞ if no token was attended
   * @param tokens attended
   * @param misses pages not served, by rising index; their tokens are left out
   * @param bytesMoved of the requests and of the answers
   * @param parts partials that were merged to this one; 1: it has the bits of one sum over the
   *     pages in the order asked
   */
  public record Attended(
      float[] output,
      float[] lse,
      long tokens,
      List<PageMiss> misses,
      long bytesMoved,
      int parts) {}

  private final ManagedChannel channel;
  private final String peer;
  private final Duration deadline;

  /** Opens a client; nothing is sent until the first call. */
  public NearPages(String target, Duration deadline) {
    this.channel = Channels.open(target);
    this.peer = "the tier at " + target;
    this.deadline = deadline;
  }

  /**
   * Scores all tokens of pages.
   *
   * @param keys 1..1024 keys of rot4 pages of one layer
   * @throws KvtierException as {@code Pages.Score} refuses
   */
  public Scores score(List<PageKey> keys, Queries queries, ScorePlanes planes) {
    ScoreRequest.Builder request =
        ScoreRequest.newBuilder().setQueries(queries.toMessage()).setPlanes(planes);
    keys.forEach(key -> request.addKeys(key.toByteString()));
    ScoreResponse response = call(stub -> stub.score(request.build()));
    int rows = queries.kvHeads().size() * queries.group();
    int served = keys.size() - response.getMissesCount();
    long bytes = (long) rows * served * PageLayout.TOKENS * Float.BYTES;
    if (response.getScores().size() != bytes) {
      throw wrongLength("bytes of scores", response.getScores().size(), bytes);
    }
    float[] values = new float[(int) (bytes / Float.BYTES)];
    response
        .getScores()
        .asReadOnlyByteBuffer()
        .order(ByteOrder.LITTLE_ENDIAN)
        .asFloatBuffer()
        .get(values);
    return new Scores(values, response.getMissesList());
  }

  /**
   * Attends to tokens of pages.
   *
   * @param keys as for {@link #score}
   * @param tokens empty: all tokens; else a bit set a key: bit t is token t
   * @throws KvtierException as {@code Pages.Attend} refuses
   */
  public Attended attend(List<PageKey> keys, Queries queries, long[] tokens) {
    AttendRequest request = NearMessages.request(keys, queries, tokens);
    return NearMessages.attended(request, call(stub -> stub.attend(request)), peer);
  }

  private KvtierException wrongLength(String name, long length, long expected) {
    return new KvtierException(
        Code.INTERNAL, "%s answered %d %s; %d are due".formatted(peer, length, name, expected));
  }

  private <R> R call(Function<PagesGrpc.PagesBlockingStub, R> method) {
    try {
      return method.apply(
          PagesGrpc.newBlockingStub(channel)
              .withDeadlineAfter(deadline.toNanos(), TimeUnit.NANOSECONDS));
    } catch (StatusRuntimeException e) {
      throw Statuses.fromStatus(e, peer);
    }
  }

  @Override
  public void close() {
    Channels.close(channel);
  }
}
