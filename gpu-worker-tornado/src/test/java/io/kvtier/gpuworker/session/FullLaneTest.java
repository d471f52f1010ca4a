package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.common.util.concurrent.MoreExecutors;
import com.google.protobuf.ByteString;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.tornado.TestLanes;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** A session whose layers are in a lane that has no more room, though the device has. */
class FullLaneTest {
  private static final TestLanes LANES = new TestLanes();
  private static final int KV_ROW = 128;
  private static final int Q_ROW = 256;
  private static final int FILLED = 1000;
  private static final int END = 2088;

  private int differing;
  private int queriesHeld;

  private final ExecutorService background = MoreExecutors.newDirectExecutorService();
  private final FaultyTransport tier =
      new FaultyTransport(new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64));

  @BeforeAll
  static void start() {
    LANES.start(1);
  }

  @AfterAll
  static void stop() {
    LANES.close();
  }

  private static Session allDense() {
    Geometry geometry =
        Geometry.newBuilder()
            .setLayers(2)
            .setQHeads(4)
            .setKvHeads(2)
            .setHeadDim(64)
            .setKvDtype(Dtype.DTYPE_BF16)
            .setModelFingerprint(ByteString.copyFromUtf8("0123456789abcdef"))
            .build();
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64).setHotSetBytes(0);
    for (int i = 0; i < 4; i++) {
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(i / 2)
              .setKvHead(i % 2)
              .setHeadClass(HeadClass.HEAD_CLASS_DENSE));
    }
    return Session.newBuilder()
        .setSessionId(UUID.randomUUID().toString())
        .setEpoch(1)
        .setGeometry(geometry)
        .setTokensMax(5000)
        .setPlan(plan)
        .build();
  }

  private WorkerSession filled(AttentionDevice device) {
    SessionLimits limits = new SessionLimits(1 << 20, 2_000_000_000L);
    Session info = allDense();
    WorkerSession session =
        SessionOpening.open(
            info,
            Prefix.NONE,
            new SessionHost(
                device, tier, background, limits, new PendingBytes(16 << 20), StepListener.NONE));
    SplittableRandom random = new SplittableRandom(5);
    for (int layer = 0; layer < 2; layer++) {
      float[] rows = gaussian(random, FILLED * KV_ROW);
      assertThat(session.append(layer, 0, FILLED, rows, rows)).isEqualTo(FILLED);
    }
    assertThat(session.finish(FILLED, (i, t, c, f, d) -> i.getPlan())).isEqualTo(info.getPlan());
    return session;
  }

  private static float[] gaussian(SplittableRandom random, int length) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    return x;
  }

  /**
   * Its heads are demoted as it grows, at last to nothing; every step answers as on the processor
   * under the same policies. Where two tokens weigh the same but for the last bit, devices may
   * choose one or the other, which one query in a thousand meets.
   */
  @Test
  void aSessionInAFullLaneDemotesItsHeadsAndGoesOn() {
    try (AttentionDevice device = LANES.device(256L << 20);
        AttentionDevice roomy = new CpuDevice(256L << 20)) {
      WorkerSession session = filled(device);
      WorkerSession demotedToo = filled(roomy);
      long bytesBefore = session.deviceBytes();
      SplittableRandom random = new SplittableRandom(6);
      try (var _ = LANES.filledUpTo(48 << 10)) {
        assertThat(grown(session, demotedToo, FILLED, 1640, random))
            .containsExactlyInAnyOrder(Residence.DENSE, Residence.TWO_PLANES);
        try (var _ = LANES.filledUpTo(6 << 10)) {
          assertThat(grown(session, demotedToo, 1640, END, random)).contains(Residence.STREAMED);
        }
      }
      assertThat(differing).isLessThan(queriesHeld / 100);
      assertThat(session.deviceBytes()).isLessThan(bytesBefore);
      session.close();
      demotedToo.close();
      assertThat(device.memory().bytesUsed()).isZero();
    }
    background.close();
  }

  /** Steps both sessions, the other under what the first has been demoted to; what heads held. */
  private Set<Residence> grown(
      WorkerSession session, WorkerSession other, int from, int to, SplittableRandom random) {
    Set<Residence> seen = EnumSet.noneOf(Residence.class);
    for (int position = from; position < to; position += 64) {
      for (int layer = 0; layer < 2; layer++) {
        float[] rows = gaussian(random, 64 * KV_ROW);
        float[] queries = gaussian(random, 64 * Q_ROW);
        float[] demoted = step(session, layer, position, queries, rows);
        List<List<HeadPolicy>> policies = session.planning().policies();
        if (!policies.equals(other.planning().policies())) {
          other.planning().adopt(session.info().getPlan(), policies);
        }
        policies.get(layer).forEach(policy -> seen.add(policy.residence()));
        float[] expected = step(other, layer, position, queries, rows);
        for (int query = 0; query < 64; query++) {
          double difference = difference(demoted, expected, query * Q_ROW);
          assertThat(difference).as("query %d, layer %d", position + query, layer).isLessThan(.05);
          differing += difference > 1e-3 ? 1 : 0;
          queriesHeld++;
        }
      }
    }
    return seen;
  }

  private static float[] step(
      WorkerSession session, int layer, int position, float[] queries, float[] rows) {
    return session.step(layer, position, 64, queries, rows, rows, new float[0]).output();
  }

  /** Of one query's output. */
  private static double difference(float[] actual, float[] expected, int from) {
    double difference = 0;
    double norm = 0;
    for (int i = from; i < from + Q_ROW; i++) {
      difference += Math.pow(actual[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
  }
}
