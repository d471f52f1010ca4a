package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.common.util.concurrent.MoreExecutors;
import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.TokenRows;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import org.junit.jupiter.api.AfterEach;

/** Sessions of two layers of two KV heads, and a tier that may misbehave. */
abstract class SessionFixture {
  static final int KV_ROW = 128;
  static final int Q_ROW = 256;
  static final float[] NO_HINT = {};

  final CpuDevice device = new CpuDevice(64L << 20);
  final FaultyTransport tier = new FaultyTransport(new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64));

  /** Background work runs at once, so that tests need not wait. */
  final ExecutorService background = MoreExecutors.newDirectExecutorService();

  final SplittableRandom random = new SplittableRandom(5);

  @AfterEach
  void nothingIsLeftOnTheDevice() {
    background.close();
    assertThat(device.memory().bytesUsed()).isZero();
    device.close();
  }

  static Session info(HeadClass headClass, long deviceBytesMax) {
    Geometry geometry =
        Geometry.newBuilder()
            .setLayers(2)
            .setQHeads(4)
            .setKvHeads(2)
            .setHeadDim(64)
            .setKvDtype(Dtype.DTYPE_BF16)
            .setModelFingerprint(ByteString.copyFromUtf8("0123456789abcdef"))
            .build();
    return Session.newBuilder()
        .setSessionId(UUID.randomUUID().toString())
        .setEpoch(1)
        .setGeometry(geometry)
        .setTokensMax(5000)
        .setDeviceBytesMax(deviceBytesMax)
        .setPlan(plan(headClass))
        .build();
  }

  static Plan plan(HeadClass headClass) {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64).setHotSetBytes(0);
    for (int i = 0; i < 4; i++) {
      HeadPlan.Builder head =
          HeadPlan.newBuilder().setLayer(i / 2).setKvHead(i % 2).setHeadClass(headClass);
      if (headClass == HeadClass.HEAD_CLASS_SPARSE) {
        head.setDominantTokensMax(128).setResidualMass(.01f);
      }
      plan.addHeads(head);
    }
    return plan.build();
  }

  WorkerSession open(Session info) {
    return open(info, background);
  }

  WorkerSession open(Session info, ExecutorService executor) {
    SessionLimits limits = new SessionLimits(1 << 20, 2_000_000_000L);
    return SessionOpening.open(
        info,
        Prefix.NONE,
        new SessionHost(
            device, tier, executor, limits, new PendingBytes(16 << 20), StepListener.NONE));
  }

  WorkerSession filled(Session info, int tokens) {
    WorkerSession session = open(info);
    for (int layer = 0; layer < 2; layer++) {
      float[] rows = gaussian(tokens * KV_ROW);
      assertThat(session.append(layer, 0, tokens, rows, rows)).isEqualTo(tokens);
    }
    requirePlan(info, session.finish(tokens, (i, t, c, f, p) -> i.getPlan()));
    return session;
  }

  /** A session with the same tokens as another that {@link #filled} made. */
  WorkerSession filled(Session info, int tokens, WorkerSession other) {
    WorkerSession session = open(info);
    for (int layer = 0; layer < 2; layer++) {
      int of = layer;
      other.load(
          layer,
          0,
          tokens,
          (position, n, keys, values) ->
              assertThat(session.append(of, position, n, keys, values)).isEqualTo(position + n));
    }
    requirePlan(info, session.finish(tokens, (i, t, c, f, p) -> i.getPlan()));
    return session;
  }

  /** Followed as it is unless it could not be. */
  private static void requirePlan(Session info, Plan effective) {
    if (info.getDeviceBytesMax() == 0) {
      assertThat(effective).isEqualTo(info.getPlan());
    } else {
      assertThat(effective.getHeadsCount()).isEqualTo(info.getPlan().getHeadsCount());
    }
  }

  /** Bytes of a row of a head with two planes, as it comes from the tier. */
  static long rowBytes() {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64);
    return new TokenRows(layout, Residence.TWO_PLANES.rows()).length();
  }

  static double difference(float[] actual, float[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += Math.pow(actual[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
  }

  float[] gaussian(int length) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    return x;
  }

  static StepResult step(WorkerSession session, int position, float[] query) {
    float[] row = new float[KV_ROW];
    return session.step(0, position, 1, query, row, row, NO_HINT);
  }

  static void refused(Code code, Runnable call) {
    assertThatThrownBy(call::run)
        .isInstanceOfSatisfying(KvtierException.class, e -> assertThat(e.code()).isEqualTo(code));
  }
}
