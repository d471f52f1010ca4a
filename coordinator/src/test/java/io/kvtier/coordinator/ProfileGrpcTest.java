package io.kvtier.coordinator;

import static io.kvtier.coordinator.LoopbackCluster.openRequest;
import static io.kvtier.coordinator.LoopbackCluster.refused;
import static org.assertj.core.api.Assertions.assertThat;

import com.google.protobuf.ByteString;
import io.grpc.Status;
import io.kvtier.v1.AheadUse;
import io.kvtier.v1.CurvePoint;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.HeadProfile;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.ModelProfile;
import io.kvtier.v1.Plan;
import io.kvtier.v1.ProfilesRequest;
import io.kvtier.v1.Session;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Plans of sessions that tell nothing of their heads, from what others have told. */
final class ProfileGrpcTest {
  private static final int TOKENS = 4096;
  private static final int MANY = 32;

  private final LoopbackCluster cluster = new LoopbackCluster(64, Duration.ofSeconds(10));
  private final LoopbackWorker worker = new LoopbackWorker();

  @BeforeEach
  void register() {
    cluster.register("w1", worker.target());
  }

  @AfterEach
  void close() {
    cluster.close();
    worker.close();
  }

  /** A session's plan; {@code needed} tokens leave 1 % in each head. */
  private Plan plan(Session session, int tokens, int queries, int needed) {
    MakePlanRequest.Builder request =
        MakePlanRequest.newBuilder()
            .setSessionId(session.getSessionId())
            .setEpoch(session.getEpoch())
            .setTokens(tokens)
            .setFixedDeviceBytes(100)
            .setQueries(queries)
            .setPages(tokens / 64 - 1);
    for (int i = 0; i < 4 && queries > 0; i++) {
      request.addHeads(
          HeadProfile.newBuilder()
              .setLayer(i / 2)
              .setKvHead(i % 2)
              .addCurve(CurvePoint.newBuilder().setK(16).setResidual(.5f))
              .addCurve(CurvePoint.newBuilder().setK(needed).setResidual(.01f))
              .addCurve(CurvePoint.newBuilder().setK(2 * needed).setResidual(0))
              .setOverlap(.2f * (i + 1)));
    }
    return cluster.cluster().makePlan(request.build());
  }

  private Plan planOfNew(int tokens, int queries, int needed) {
    Session session =
        cluster.sessions().open(openRequest().toBuilder().setTokensMax(1 << 20).build());
    return plan(session, tokens, queries, needed);
  }

  /** What a plan's first head is said to need. */
  private static int needed(Plan plan) {
    String reason = plan.getHeads(0).getReason();
    String number = reason.replaceAll(".*?([0-9,]+) of [0-9,]+ tokens leave 1 %.*", "$1");
    return Integer.parseInt(number.replace(",", ""));
  }

  private List<ModelProfile> profiles(int tokens) {
    return cluster
        .cluster()
        .profiles(ProfilesRequest.newBuilder().setTokens(tokens).build())
        .getProfilesList();
  }

  private List<ModelProfile> profilesOf(ByteString model) {
    return cluster
        .cluster()
        .profiles(ProfilesRequest.newBuilder().setModelFingerprint(model).build())
        .getProfilesList();
  }

  @Test
  void aSessionThatTellsNothingIsPlannedByWhatOthersHaveTold() {
    assertThat(planOfNew(TOKENS, 0, 0).getHeads(0).getReason()).startsWith("no profile");
    Plan told = planOfNew(TOKENS, MANY, 512);
    assertThat(told.getProfileSessions()).isZero();
    assertThat(told.getHeads(0).getReason()).startsWith("512 of 4,096 tokens leave 1 %");

    Plan quiet = planOfNew(TOKENS, 0, 0);
    assertThat(quiet.getProfileSessions()).isEqualTo(1);
    assertThat(quiet.getHeads(0).getReason())
        .startsWith("profile of 1 session, 512 of 4,096 tokens leave 1 %");
    assertThat(quiet.getHeads(0).getHeadClass()).isEqualTo(told.getHeads(0).getHeadClass());
    // Few queries are too rough; a longer context needs as many more tokens.
    assertThat(needed(planOfNew(TOKENS, 4, 64))).isEqualTo(512);
    assertThat(needed(planOfNew(16 * TOKENS, 0, 0))).isEqualTo(16 * 512);
    // Neither has been taken in.
    assertThat(profiles(0)).extracting(ModelProfile::getSessions).containsExactly(1);
  }

  @Test
  void whatRecursIsToldWithTheProfileAndPlannedBy() {
    Plan told = planOfNew(TOKENS, MANY, 512);
    Plan quiet = planOfNew(TOKENS, 0, 0);
    for (Plan plan : List.of(told, quiet)) {
      assertThat(plan.getHeadsList())
          .extracting(HeadPlan::getAhead)
          .containsExactly(
              AheadUse.AHEAD_USE_NOTHING,
              AheadUse.AHEAD_USE_NOTHING,
              AheadUse.AHEAD_USE_NOTHING,
              AheadUse.AHEAD_USE_LAST);
      assertThat(plan.getHeads(3).getReason())
          .endsWith("80 % were chosen the query before: fetched ahead");
    }
    assertThat(profiles(TOKENS).getFirst().getHeads(3).getOverlap()).isEqualTo(.8f);
  }

  /** What the first sessions told gives way to what the later ones tell. */
  @Test
  void profilesAreRefined() {
    for (int session = 0; session < 3; session++) {
      assertThat(needed(planOfNew(TOKENS, MANY, 128))).isEqualTo(128);
    }
    assertThat(needed(planOfNew(TOKENS, 0, 0))).isBetween(120, 140);
    for (int session = 0; session < 20; session++) {
      assertThat(needed(planOfNew(TOKENS, MANY, 1024))).isEqualTo(1024);
    }
    Plan refined = planOfNew(TOKENS, 0, 0);
    assertThat(needed(refined)).isBetween(900, 1024);
    assertThat(refined.getProfileSessions()).isEqualTo(23);
  }

  @Test
  void aSessionIsTakenInOnceAndAShortOneNotAtAll() {
    Session session = cluster.sessions().open(openRequest());
    assertThat(needed(plan(session, 3000, MANY, 128))).isEqualTo(128);
    assertThat(needed(plan(session, TOKENS, MANY, 256))).isEqualTo(256);
    assertThat(needed(planOfNew(511, MANY, 32))).isEqualTo(32);
    assertThat(profiles(0)).extracting(ModelProfile::getSessions).containsExactly(1);
  }

  @Test
  void aProfileIsTold() {
    assertThat(profiles(TOKENS)).isEmpty();
    assertThat(needed(planOfNew(TOKENS, MANY, 512))).isEqualTo(512);
    assertThat(profiles(0))
        .singleElement()
        .satisfies(profile -> {
          assertThat(profile.getGeometry())
              .isEqualTo(openRequest().getGeometry().toBuilder().clearKvDtype().build());
          assertThat(profile.getBytes()).isBetween(512L, 4096L);
          assertThat(profile.getHeadsList()).isEmpty();
        });
    assertThat(profiles(TOKENS).getFirst().getHeadsList())
        .hasSize(4)
        .allSatisfy(head ->
            assertThat(head.getCurveList())
                .contains(CurvePoint.newBuilder().setK(512).setResidual(.01f).build()));
    ByteString own = openRequest().getGeometry().getModelFingerprint();
    assertThat(profilesOf(own)).hasSize(1);
    assertThat(profilesOf(ByteString.copyFromUtf8("another model's!"))).isEmpty();
    refused(Status.Code.INVALID_ARGUMENT, () -> profiles((1 << 20) + 1))
        .hasMessageContaining("tokens is 1048577; it must be 0..1048576");
  }
}
