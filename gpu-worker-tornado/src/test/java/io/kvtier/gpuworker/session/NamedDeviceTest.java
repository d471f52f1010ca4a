package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.common.util.concurrent.MoreExecutors;
import com.google.protobuf.ByteString;
import io.kvtier.gpuworker.Devices;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceProvider;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.List;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import org.junit.jupiter.api.Test;

/** A session from its prefill to its end on a device that was chosen by its name, the last one. */
class NamedDeviceTest {
  private static final long BYTES = 64 << 20;
  private static final int LAYERS = 4;
  private static final int KV_ROW = 128;
  private static final int Q_ROW = 256;
  private static final int PREFILLED = 1101;
  private static final int STEPS = 80;

  private final ExecutorService background = MoreExecutors.newDirectExecutorService();

  /** What {@code kvtier doctor} lists and {@code --device} takes. */
  private static String lastDevice() {
    String last = "";
    for (DeviceProvider provider : Devices.providers()) {
      for (String line : provider.devices()) {
        last = line.substring(0, line.indexOf(' '));
      }
    }
    return last;
  }

  @Test
  void aSessionIsServedThereAsOnTheProcessor() {
    String name = lastDevice();
    assertThat(name).matches("tornado:\\d+:\\d+");
    int same = 0;
    try (AttentionDevice named = Devices.open(name, BYTES, doing -> {});
        AttentionDevice cpu = Devices.open(Devices.CPU, BYTES, doing -> {})) {
      assertThat(named.name()).startsWith(name + ", ");
      WorkerSession ours = prefilled(named);
      WorkerSession theirs = prefilled(cpu);
      SplittableRandom random = new SplittableRandom(6);
      for (int position = PREFILLED; position < PREFILLED + STEPS; position++) {
        for (int layer = 0; layer < LAYERS; layer++) {
          float[] rows = gaussian(random, KV_ROW);
          float[] query = gaussian(random, Q_ROW);
          double difference =
              difference(
                  step(ours, layer, position, query, rows),
                  step(theirs, layer, position, query, rows));
          // Where two tokens weigh the same but for a last bit, devices may choose either.
          assertThat(difference).as("layer %d of token %d", layer, position).isLessThan(.05);
          same += difference < 1e-3 ? 1 : 0;
        }
      }
      assertThat(ours.planning().policies()).isEqualTo(theirs.planning().policies());
      assertThat(named.memory().bytesUsed()).isPositive();
      ours.close();
      theirs.close();
      assertThat(named.memory().bytesUsed()).isZero();
    }
    assertThat(same).isGreaterThanOrEqualTo(STEPS * LAYERS - 2);
    background.close();
  }

  /** By layer and KV head. */
  private static final List<HeadClass> CLASSES =
      List.of(
          HeadClass.HEAD_CLASS_DENSE,
          HeadClass.HEAD_CLASS_DENSE,
          HeadClass.HEAD_CLASS_SPARSE,
          HeadClass.HEAD_CLASS_SPARSE,
          HeadClass.HEAD_CLASS_DENSE,
          HeadClass.HEAD_CLASS_SPARSE,
          HeadClass.HEAD_CLASS_STREAMED,
          HeadClass.HEAD_CLASS_SPARSE);

  private static Session session() {
    Geometry geometry =
        Geometry.newBuilder()
            .setLayers(LAYERS)
            .setQHeads(4)
            .setKvHeads(2)
            .setHeadDim(64)
            .setKvDtype(Dtype.DTYPE_BF16)
            .setModelFingerprint(ByteString.copyFromUtf8("0123456789abcdef"))
            .build();
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64).setHotSetBytes(1 << 20);
    for (int i = 0; i < 2 * LAYERS; i++) {
      boolean sparse = CLASSES.get(i) == HeadClass.HEAD_CLASS_SPARSE;
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(i / 2)
              .setKvHead(i % 2)
              .setHeadClass(CLASSES.get(i))
              .setDominantTokensMax(sparse ? 200 : 0)
              .setResidualMass(sparse ? .01f : 0)
              .setSketchPlanes(sparse ? 1 + i % 2 : 0));
    }
    return Session.newBuilder()
        .setSessionId(UUID.randomUUID().toString())
        .setEpoch(1)
        .setGeometry(geometry)
        .setTokensMax(5000)
        .setPlan(plan)
        .build();
  }

  private WorkerSession prefilled(AttentionDevice device) {
    FaultyTransport tier = new FaultyTransport(new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64));
    SessionLimits limits = new SessionLimits(1 << 20, 2_000_000_000L);
    WorkerSession session =
        SessionOpening.open(
            session(),
            Prefix.NONE,
            new SessionHost(
                device, tier, background, limits, new PendingBytes(16 << 20), StepListener.NONE));
    SplittableRandom random = new SplittableRandom(5);
    for (int layer = 0; layer < LAYERS; layer++) {
      float[] keys = gaussian(random, PREFILLED * KV_ROW);
      float[] values = gaussian(random, PREFILLED * KV_ROW);
      assertThat(session.append(layer, 0, PREFILLED, keys, values)).isEqualTo(PREFILLED);
    }
    var _ = session.finish(PREFILLED, (i, t, c, f, d) -> i.getPlan());
    return session;
  }

  private static float[] step(
      WorkerSession session, int layer, int position, float[] query, float[] rows) {
    return session.step(layer, position, 1, query, rows, rows, new float[0]).output();
  }

  private static float[] gaussian(SplittableRandom random, int length) {
    float[] x = new float[length];
    for (int i = 0; i < length; i++) {
      x[i] = (float) random.nextGaussian();
    }
    return x;
  }

  private static double difference(float[] actual, float[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += Math.pow(actual[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
  }
}
