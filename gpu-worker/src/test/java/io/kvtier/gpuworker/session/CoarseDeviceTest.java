package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.common.util.concurrent.MoreExecutors;
import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.Session;
import java.util.UUID;
import org.junit.jupiter.api.Test;

/** A device whose kernels attend by four bits, as TornadoVM's do. */
class CoarseDeviceTest {
  private final CpuDevice processor = new CpuDevice(16L << 20);

  private final AttentionDevice coarse =
      new AttentionDevice() {
        @Override
        public String name() {
          return "coarse";
        }

        @Override
        public DeviceMemory memory() {
          return processor.memory();
        }

        @Override
        public double copyBandwidth() {
          return processor.copyBandwidth();
        }

        @Override
        public DeviceLayer newLayer(int layer, LayerShape shape) {
          return processor.newLayer(layer, shape);
        }

        @Override
        public void close() {
          processor.close();
        }
      };

  private SessionHost host(AttentionDevice device) {
    return new SessionHost(
        device,
        new FaultyTransport(new PageLayout(Codec.ROT8, Codec.ROT8, 2, 64)),
        MoreExecutors.newDirectExecutorService(),
        new SessionLimits(1 << 20, 2_000_000_000L),
        new PendingBytes(16 << 20),
        StepListener.NONE);
  }

  /** With a code that has another worker asked, and before anybody gives way for it. */
  @Test
  void refusesEightBitsBeforeItTakesAnything() {
    Session info =
        Session.newBuilder()
            .setSessionId(UUID.randomUUID().toString())
            .setEpoch(1)
            .setGeometry(
                Geometry.newBuilder()
                    .setLayers(2)
                    .setQHeads(4)
                    .setKvHeads(2)
                    .setHeadDim(64)
                    .setKvDtype(Dtype.DTYPE_BF16)
                    .setCodeBits(8)
                    .setModelFingerprint(ByteString.copyFromUtf8("0123456789abcdef")))
            .setTokensMax(1000)
            .build();
    try (AttentionDevice device = coarse) {
      assertThatThrownBy(() -> SessionOpening.open(info, Prefix.NONE, host(device)))
          .isInstanceOf(KvtierException.class)
          .hasMessage(
              "code_bits is 8 and the worker's device (coarse) attends to 4 bits alone; open the"
                  + " session with 4, or start a worker with --device cpu")
          .extracting(refusal -> ((KvtierException) refusal).code())
          .isEqualTo(Code.EXHAUSTED);
      assertThatThrownBy(() -> SessionOpening.resume(info, Prefix.NONE, host(device)))
          .hasMessageContaining("attends to 4 bits alone");
      assertThat(device.memory().bytesUsed()).isZero();
      WorkerSession served = SessionOpening.open(info, Prefix.NONE, host(processor));
      served.close();
    }
  }
}
