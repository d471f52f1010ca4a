package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import java.util.Random;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class SinkPageTest {
  private static final DeviceLayer.PageSink NOWHERE =
      new DeviceLayer.PageSink() {
        @Override
        public PageKey key(int pageIndex, DirectBuffer page) {
          throw new AssertionError("no page leaves the window");
        }

        @Override
        public void accept(PageKey key, DirectBuffer page, int length) {
          throw new AssertionError("no page leaves the window");
        }
      };

  private static LayerShape shape(int exactBytes) {
    return new LayerShape(
        new Fingerprint(1, 2), new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64), 2, exactBytes, 4, 64);
  }

  /** All 24 bits of a 32-bit row come back; so do the 8 of a 16-bit one. */
  @ParameterizedTest
  @ValueSource(ints = {2, 4})
  void rowsComeBackToTheBit(int exactBytes) {
    LayerShape shape = shape(exactBytes);
    Random random = new Random(3);
    float[] keys = new float[4 * shape.rowLength()];
    float[] values = new float[4 * shape.rowLength()];
    for (int i = 0; i < keys.length; i++) {
      keys[i] = (float) (random.nextGaussian() * Math.exp(20 * random.nextDouble() - 14));
      values[i] = i % 5 == 0 ? -0f : (float) random.nextGaussian();
    }
    try (CpuDevice device = new CpuDevice(1 << 22)) {
      DeviceLayer layer = device.newLayer(0, shape);
      layer.append(keys, values, 4, NOWHERE);
      float[] exactKeys = new float[keys.length];
      float[] exactValues = new float[keys.length];
      for (int t = 0; t < 4; t++) {
        for (int head = 0; head < 2; head++) {
          layer.readRow(head, t, null, exactKeys, exactValues, t * shape.rowLength() + head * 64);
        }
      }
      SinkPage sinks = new SinkPage(shape);
      UnsafeBuffer page = sinks.write(0, layer);
      assertThat(Pages.verify(page, 0, page.capacity())).isEqualTo(Pages.Flaw.NONE);
      float[] readKeys = new float[keys.length];
      float[] readValues = new float[keys.length];
      sinks.read(page, 0, readKeys, readValues);
      assertThat(readKeys).isEqualTo(exactKeys);
      for (int i = 0; i < values.length; i++) {
        // A zero's sign is of no account to a sum.
        assertThat(readValues[i] + 0f).isEqualTo(exactValues[i] + 0f);
      }
      var _ = layer.release();
    }
  }

  @Test
  void rowsOfAnotherPrecisionAreLostRatherThanRounded() {
    LayerShape wide = shape(4);
    try (CpuDevice device = new CpuDevice(1 << 22)) {
      DeviceLayer layer = device.newLayer(0, wide);
      layer.append(new float[4 * 128], new float[4 * 128], 4, NOWHERE);
      UnsafeBuffer page = new SinkPage(wide).write(0, layer);
      float[] rows = new float[4 * 128];
      assertThatThrownBy(() -> new SinkPage(shape(2)).read(page, 0, rows, rows))
          .isInstanceOf(KvtierException.class)
          .hasMessage("a page of sink rows has 12 rows; 4 are needed");
      var _ = layer.release();
    }
  }
}
