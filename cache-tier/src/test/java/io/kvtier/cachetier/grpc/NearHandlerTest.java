package io.kvtier.cachetier.grpc;

import static io.kvtier.cachetier.near.NearFixture.GROUP;
import static io.kvtier.cachetier.near.NearFixture.PAGES;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.attention.Kernels;
import io.kvtier.cachetier.near.NearFixture;
import io.kvtier.cachetier.near.NearPool;
import io.kvtier.client.NearPages;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AttendRequest;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Miss;
import io.kvtier.v1.NearQueries;
import io.kvtier.v1.PageMiss;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.ScorePlanes;
import io.kvtier.v1.ScoreRequest;
import io.kvtier.v1.Tensor;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Score and Attend over a real endpoint: the bits of a client that fetches, and refusals. */
@Timeout(120)
final class NearHandlerTest {
  private static final int HEAD_DIM = 64;

  private final NearFixture at = new NearFixture(HEAD_DIM);
  private final NearPool pool = new NearPool(at.pages, 2, 8);
  private final Endpoint endpoint =
      Endpoint.start(
          EndpointConfig.loopback(),
          List.of(new PagesGrpcService(at.pages, new NearHandler(pool))),
          new PrometheusMeterRegistry(PrometheusConfig.DEFAULT),
          Executors.newFixedThreadPool(2));
  private final NearPages near = new NearPages(endpoint.target(), Duration.ofSeconds(30));
  private final ManagedChannel channel = Channels.open(endpoint.target());

  @AfterEach
  void stop() {
    Channels.close(channel);
    near.close();
    endpoint.close();
    pool.close();
    at.close();
  }

  private NearPages.Queries queries(float scale, int... heads) {
    List<Integer> kvHeads = Arrays.stream(heads).boxed().toList();
    return new NearPages.Queries(kvHeads, GROUP, HEAD_DIM, at.queriesOf(heads), scale);
  }

  private static long[] all() {
    long[] tokens = new long[PAGES];
    Arrays.fill(tokens, -1);
    tokens[PAGES - 1] = (1L << NearFixture.SHORT_TOKENS) - 1;
    return tokens;
  }

  @Test
  void answersAreTheBitsOfAClientThatFetchesThePages() {
    for (float scale : new float[] {0, (float) (1 / Math.sqrt(HEAD_DIM))}) {
      NearPages.Attended attended = near.attend(at.keys, queries(scale, 1), new long[0]);
      float[] here = at.attendHere(1, all(), Kernels.best());
      assertThat(attended.output()).isEqualTo(Arrays.copyOf(here, GROUP * HEAD_DIM));
      assertThat(attended.lse()).isEqualTo(Arrays.copyOfRange(here, GROUP * HEAD_DIM, here.length));
      assertThat(attended.misses()).isEmpty();
    }
    NearPages.Scores scores = near.score(at.keys, queries(0, 2), ScorePlanes.SCORE_PLANES_SKETCH);
    assertThat(scores.values()).isEqualTo(at.scoreHere(2, 2, Kernels.best()));
    NearPages.Scores exact = near.score(at.keys, queries(0, 2), ScorePlanes.SCORE_PLANES_ALL);
    assertThat(exact.values()).isEqualTo(at.scoreHere(2, 4, Kernels.best()));
    // Four times the scale is four times the score: a power of two rounds nothing.
    NearPages.Scores steep = near.score(at.keys, queries(.5f, 2), ScorePlanes.SCORE_PLANES_ALL);
    for (int i = 0; i < exact.values().length; i++) {
      assertThat(steep.values()[i]).isEqualTo(4 * exact.values()[i]);
    }
  }

  @Test
  void missesComeBackByIndex() {
    at.pages.delete(at.keys.get(2));
    PageMiss miss = PageMiss.newBuilder().setIndex(2).setMiss(Miss.MISS_ABSENT).build();
    long[] tokens = all();
    NearPages.Attended attended = near.attend(at.keys, queries(0, 0), tokens);
    assertThat(attended.misses()).containsExactly(miss);
    tokens[2] = 0;
    float[] here = at.attendHere(0, tokens, Kernels.best());
    assertThat(attended.output()).isEqualTo(Arrays.copyOf(here, GROUP * HEAD_DIM));
    assertThat(attended.tokens()).isEqualTo(4 * 64 + NearFixture.SHORT_TOKENS);
    assertThat(near.score(at.keys, queries(0, 0), ScorePlanes.SCORE_PLANES_SIGN).misses())
        .containsExactly(miss);
    // A page of which nothing is wanted is not read, and not missed.
    assertThat(near.attend(at.keys, queries(0, 0), tokens).misses()).isEmpty();
    at.keys.forEach(at.pages::delete);
    NearPages.Attended nothing = near.attend(at.keys, queries(0, 0), new long[0]);
    assertThat(nothing.lse()).containsOnly(Float.NEGATIVE_INFINITY);
    assertThat(nothing.misses()).hasSize(PAGES);
  }

  private AttendRequest.Builder attend() {
    AttendRequest.Builder request =
        AttendRequest.newBuilder()
            .setQueries(
                NearQueries.newBuilder().addKvHeads(0).setQueries(tensor(1, GROUP, HEAD_DIM)));
    at.keys.forEach(key -> request.addKeys(key.toByteString()));
    return request;
  }

  private static Tensor tensor(int... shape) {
    int elements = Arrays.stream(shape).reduce(1, (a, b) -> a * b);
    return Tensors.of(Dtype.DTYPE_FP32, new float[elements], shape);
  }

  private void refused(String message, AttendRequest.Builder request) {
    assertThatThrownBy(() ->
            PagesGrpc.newBlockingStub(channel)
                .withDeadlineAfter(30, TimeUnit.SECONDS)
                .attend(request.build()))
        .isInstanceOfSatisfying(
            StatusRuntimeException.class,
            e -> assertThat(e.getStatus().getCode()).isEqualTo(Status.Code.INVALID_ARGUMENT))
        .hasMessageContaining(message);
  }

  @Test
  void wrongRequestsAreRefusedWithNameAndBound() {
    refused("number of keys is 0", attend().clearKeys());
    refused("keys[6]", attend().addKeys(at.keys.get(0).toByteString().substring(1)));
    AttendRequest.Builder many = attend();
    for (int i = 0; i < 1024; i++) {
      many.addKeys(at.keys.get(0).toByteString());
    }
    refused("number of keys is 1030", many);
    AttendRequest.Builder bits = attend();
    for (int i = 0; i < 5000; i++) {
      bits.addTokens(1);
    }
    refused("bit sets", bits);
    refused(
        "kv_heads is 0",
        attend().setQueries(NearQueries.newBuilder().setQueries(tensor(0, 1, 64))));
    refused("shape", withQueries(tensor(GROUP, HEAD_DIM)));
    refused("head_dim", withQueries(tensor(1, 1, 24)));
    refused("group", withQueries(tensor(1, 129, 16)));
    Tensor good = tensor(1, GROUP, HEAD_DIM);
    refused("bytes", withQueries(good.toBuilder().setData(good.getData().substring(4)).build()));
    refused("dtype", withQueries(good.toBuilder().setDtype(Dtype.DTYPE_UNSPECIFIED).build()));
    refused("group", withQueries(good.toBuilder().setShape(1, -1).build()));
    AttendRequest.Builder steep = attend();
    steep.getQueriesBuilder().setScale(17);
    refused("scale is 17", steep);
    steep.getQueriesBuilder().setScale(Float.NaN);
    refused("scale is NaN", steep);
    assertThatThrownBy(() ->
            PagesGrpc.newBlockingStub(channel)
                .withDeadlineAfter(30, TimeUnit.SECONDS)
                .score(
                    ScoreRequest.newBuilder()
                        .addKeys(at.keys.get(0).toByteString())
                        .setQueries(attend().getQueries())
                        .build()))
        .hasMessageContaining("planes");
    // What only the pages can tell is refused from the pool's threads.
    assertThatThrownBy(() -> near.attend(at.keys, queries(0, 0), tokensBeyond()))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.INVALID))
        .hasMessageContaining("tokens[5]");
    assertThat(at.store.pages()).isEqualTo(PAGES);
  }

  private static long[] tokensBeyond() {
    long[] tokens = new long[PAGES];
    Arrays.fill(tokens, -1);
    return tokens;
  }

  private AttendRequest.Builder withQueries(Tensor tensor) {
    AttendRequest.Builder request = attend();
    request.getQueriesBuilder().setQueries(tensor);
    return request;
  }
}
