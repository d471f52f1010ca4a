package io.kvtier.cachetier.near;

import static io.kvtier.cachetier.near.NearFixture.GROUP;
import static io.kvtier.cachetier.near.NearFixture.KV_HEADS;
import static io.kvtier.cachetier.near.NearFixture.PAGES;
import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.attention.Kernels;
import io.kvtier.cachetier.Read.MissReason;
import io.kvtier.cachetier.TestPages;
import io.kvtier.cachetier.near.NearResult.PageMiss;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Section;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** What is computed near the pages is what a client computes that has fetched them. */
@Timeout(60)
class NearPoolTest {
  static Stream<Arguments> kernels() {
    return Stream.of(16, 80, 128)
        .flatMap(headDim ->
            Stream.of(Kernels.scalar(), Kernels.best())
                .map(kernels -> Arguments.of(headDim, kernels)));
  }

  private static CompletableFuture<NearResult> submit(
      NearPool pool, NearRequest request, BooleanSupplier unwanted) {
    CompletableFuture<NearResult> result = new CompletableFuture<>();
    pool.submit(request, unwanted, result::complete, result::completeExceptionally);
    return result;
  }

  private static NearResult run(NearFixture at, Kernels kernels, NearRequest request) {
    try (NearPool pool = new NearPool(at.pages, 2, 4, kernels)) {
      return submit(pool, request, () -> false).join();
    } catch (CompletionException e) {
      throw e.getCause() instanceof KvtierException refused ? refused : e;
    }
  }

  private static long[] allTokens() {
    long[] tokens = new long[PAGES];
    Arrays.setAll(tokens, NearFixture::all);
    return tokens;
  }

  private static void requireSameAsHere(
      NearFixture at, Kernels kernels, NearResult result, long[] tokens, int... heads) {
    int perHead = GROUP * at.layout.headDim();
    for (int i = 0; i < heads.length; i++) {
      float[] here = at.attendHere(heads[i], tokens, kernels);
      assertThat(Arrays.copyOfRange(result.values(), i * perHead, (i + 1) * perHead))
          .isEqualTo(Arrays.copyOf(here, perHead));
      assertThat(Arrays.copyOfRange(result.lse(), i * GROUP, (i + 1) * GROUP))
          .isEqualTo(Arrays.copyOfRange(here, perHead, perHead + GROUP));
      at.requireReference(heads[i], tokens, result.values(), i * perHead, result.lse(), i * GROUP);
    }
  }

  @ParameterizedTest
  @MethodSource("kernels")
  void attendsToAllTokensOrToSome(int headDim, Kernels kernels) {
    try (NearFixture at = new NearFixture(headDim)) {
      NearResult all = run(at, kernels, at.request(0, new long[0], 0, 1, 2));
      requireSameAsHere(at, kernels, all, allTokens(), 0, 1, 2);
      assertThat(all.misses()).isEmpty();
      assertThat(all.tokens()).isEqualTo((PAGES - 1) * TOKENS + NearFixture.SHORT_TOKENS);
      long[] some = {1, 0, -1L << 60, 0x5555_5555_5555_5555L, 0, 1L << 40};
      NearResult few = run(at, kernels, at.request(0, some, 2));
      requireSameAsHere(at, kernels, few, some, 2);
      assertThat(few.tokens()).isEqualTo(1 + 4 + 32 + 1);
      NearResult none = run(at, kernels, at.request(0, new long[PAGES], 1));
      assertThat(none.values()).containsOnly(0);
      assertThat(none.lse()).containsOnly(Float.NEGATIVE_INFINITY);
    }
  }

  @ParameterizedTest
  @MethodSource("kernels")
  void scoresByOneTwoOrAllPlanes(int headDim, Kernels kernels) {
    try (NearFixture at = new NearFixture(headDim)) {
      int perHead = GROUP * PAGES * TOKENS;
      for (int planes : new int[] {1, 2, 4}) {
        NearResult result = run(at, kernels, at.request(planes, new long[0], 0, 2));
        for (int i = 0; i < 2; i++) {
          assertThat(Arrays.copyOfRange(result.values(), i * perHead, (i + 1) * perHead))
              .as("%d planes", planes)
              .isEqualTo(at.scoreHere(2 * i, planes, kernels));
        }
        // The short page has no token beyond its last; attention by these scores has this LSE.
        assertThat(result.values()[perHead - 1]).isEqualTo(Float.NEGATIVE_INFINITY);
        if (planes == 4) {
          double sum = 0;
          for (int t = 0; t < PAGES * TOKENS; t++) {
            sum += Math.exp(result.values()[t]);
          }
          float lse = at.attendHere(0, allTokens(), kernels)[GROUP * headDim];
          assertThat(Math.log(sum)).isCloseTo(lse, org.assertj.core.data.Offset.offset(1e-4));
        }
      }
    }
  }

  @Test
  void whatIsMissingIsToldAndLeftOut() {
    try (NearFixture at = new NearFixture(64)) {
      at.pages.delete(at.keys.get(1));
      at.store.flip(at.keys.get(3), at.layout.offset(0, Section.V_CODES));
      at.store.flip(at.keys.get(4), at.layout.offset(2, Section.V_CODES));
      long[] tokens = allTokens();
      tokens[1] = 0;
      NearResult scores = run(at, Kernels.best(), at.request(4, new long[0], 0));
      // Values are not read for scores: their flaw is not found, and does no harm.
      assertThat(scores.misses()).containsExactly(new PageMiss(1, MissReason.ABSENT));
      float[] expected = at.scoreHere(0, 4, Kernels.best());
      for (int g = 0; g < GROUP; g++) {
        int from = g * PAGES * TOKENS;
        int to = g * (PAGES - 1) * TOKENS;
        assertThat(Arrays.copyOfRange(scores.values(), to, to + TOKENS))
            .isEqualTo(Arrays.copyOfRange(expected, from, from + TOKENS));
        assertThat(Arrays.copyOfRange(scores.values(), to + TOKENS, to + 2 * TOKENS))
            .isEqualTo(Arrays.copyOfRange(expected, from + 2 * TOKENS, from + 3 * TOKENS));
      }
      tokens[3] = 0;
      // Head 2 of page 4 is flawed, heads 0 and 1 are not: these two are attended.
      NearResult result = run(at, Kernels.best(), at.request(0, new long[0], 0, 1));
      assertThat(result.misses())
          .containsExactly(new PageMiss(1, MissReason.ABSENT), new PageMiss(3, MissReason.CORRUPT));
      requireSameAsHere(at, Kernels.best(), result, tokens, 0, 1);
      assertThat(at.store.contains(at.keys.get(3))).isFalse();
      assertThat(at.pages.counts().missesCorrupt()).isOne();
      at.keys.forEach(at.pages::delete);
      NearResult nothing = run(at, Kernels.best(), at.request(0, new long[0], 0, 1, 2));
      assertThat(nothing.misses()).hasSize(PAGES);
      assertThat(nothing.values()).hasSize(KV_HEADS * GROUP * 64).containsOnly(0);
      assertThat(nothing.lse()).containsOnly(Float.NEGATIVE_INFINITY);
    }
  }

  @Test
  void pagesThatTheQueriesDoNotFitAreRefused() {
    try (NearFixture at = new NearFixture(64)) {
      refused(at, "queries have head_dim 80", at.keys, new int[] {0}, 80, 0, new long[0]);
      refused(at, "heads has head 3", at.keys, new int[] {1, 3}, 64, 0, new long[0]);
      refused(
          at,
          "tokens[5] has token 41",
          at.keys,
          new int[] {1},
          64,
          0,
          new long[] {1, 1, 1, 1, 1, 1L << 41});
      PageLayout raw = TestPages.raw16(KV_HEADS, 64);
      at.pages.put(TestPages.key(5, 0, 2, raw), TestPages.page(raw, 2, 1), 0, raw.pageLength());
      refused(
          at,
          "sections is",
          List.of(TestPages.key(5, 0, 2, raw)),
          new int[] {0},
          64,
          0,
          new long[0]);
      refused(at, "must rise", at.keys, new int[] {1, 1}, 64, 0, new long[0]);
      refused(at, "multiple of 16", at.keys, new int[] {1}, 40, 0, new long[0]);
      refused(at, "number of keys is 0", List.of(), new int[] {1}, 64, 0, new long[0]);
      refused(at, "planes is 3", at.keys, new int[] {1}, 64, 3, new long[0]);
      refused(at, "tokens has 2 bit sets", at.keys, new int[] {1}, 64, 0, new long[2]);
      refused(
          at,
          "must be of one layer",
          List.of(at.keys.get(0), TestPages.key(1, 0, 3, at.layout)),
          new int[] {1},
          64,
          0,
          new long[0]);
    }
  }

  private static void refused(
      NearFixture at,
      String message,
      List<io.kvtier.page.PageKey> keys,
      int[] heads,
      int headDim,
      int planes,
      long[] tokens) {
    float[] queries = new float[heads.length * GROUP * headDim];
    assertThatThrownBy(() ->
            run(
                at,
                Kernels.best(),
                new NearRequest(keys, heads, GROUP, headDim, queries, planes, tokens)))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.INVALID))
        .hasMessageContaining(message);
  }

  @Test
  void moreThanTheQueueHoldsIsRefusedAtOnceAndTheRestIsDone() throws Exception {
    try (NearFixture at = new NearFixture(64);
        NearPool pool = new NearPool(at.pages, 1, 2)) {
      CountDownLatch working = new CountDownLatch(1);
      CountDownLatch goOn = new CountDownLatch(1);
      BooleanSupplier holds =
          () -> {
            working.countDown();
            try {
              return !goOn.await(30, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
              return true;
            }
          };
      NearRequest request = at.request(0, new long[0], 0);
      CompletableFuture<NearResult> first = submit(pool, request, holds);
      assertThat(working.await(30, TimeUnit.SECONDS)).isTrue();
      CompletableFuture<NearResult> second = submit(pool, request, () -> false);
      CompletableFuture<NearResult> unwanted = submit(pool, request, () -> true);
      assertThatThrownBy(() -> submit(pool, request, () -> false))
          .isInstanceOfSatisfying(
              KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
          .hasMessageContaining("2 requests wait");
      assertThat(pool.waiting()).isEqualTo(2);
      assertThat(pool.refused()).isOne();
      goOn.countDown();
      assertThat(second.join().values()).isEqualTo(first.join().values());
      CompletableFuture<NearResult> last = submit(pool, request, () -> false);
      assertThat(last.join().values()).isEqualTo(first.join().values());
      assertThat(unwanted).isNotDone();
      assertThat(pool.done()).isEqualTo(3);
    }
  }
}
