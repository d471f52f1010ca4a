package io.kvtier.gpuworker.tornado;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.DeviceSlot;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Residence;
import io.kvtier.page.TokenRows;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Lanes beside each other, against the processor, and when they are full. */
class LanesTest {
  private static final TestLanes LANES = new TestLanes();
  private static final Fingerprint MODEL = new Fingerprint(1, 2);
  private static final long BYTES = 256L << 20;

  @BeforeAll
  static void start() {
    LANES.start(2);
  }

  @AfterAll
  static void stop() {
    LANES.close();
  }

  private static LayerShape shape(int exactBytes) {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64);
    return new LayerShape(MODEL, layout, 8, exactBytes, 4, 64);
  }

  /** A layer filled with the same tokens on any device, and its pages. */
  private static final class Filled implements DeviceLayer.PageSink {
    final AttentionDevice device;
    final LayerShape shape;
    final DeviceLayer layer;
    final List<UnsafeBuffer> pages = new ArrayList<>();

    Filled(AttentionDevice device, int index, LayerShape shape, int tokens, float size) {
      this.device = device;
      this.shape = shape;
      this.layer = device.newLayer(index, shape);
      append(tokens, size, index);
    }

    void append(int tokens, float size, long seed) {
      SplittableRandom random = new SplittableRandom(seed);
      float[] keys = CodedHead.gaussian(random, tokens * shape.rowLength(), size);
      float[] values = CodedHead.gaussian(random, tokens * shape.rowLength(), size);
      layer.append(keys, values, tokens, this);
    }

    @Override
    public PageKey key(int pageIndex, DirectBuffer page) {
      return PageKey.ofSession(new UUID(3, 4), pageIndex, MODEL, 0, shape.layout());
    }

    @Override
    public void accept(PageKey key, DirectBuffer page, int length) {
      byte[] bytes = new byte[length];
      page.getBytes(0, bytes);
      pages.add(new UnsafeBuffer(bytes));
    }

    /** Output and log-sum-exps of one query. */
    float[] attend(HeadPolicy policy, float[] query) {
      LayerPass pass = layer.newPass(Collections.nCopies(2, policy));
      pass.choose(query, 0, new float[0], new float[0], 0);
      TokenRows rows = new TokenRows(shape.layout(), Residence.TWO_PLANES.rows());
      List<DeviceSlot> slots = new ArrayList<>();
      for (int head = 0; head < 2 && policy.sketched(); head++) {
        for (int i = 0; i < pass.chosenCount(head); i++) {
          int position = pass.chosenPosition(head, i);
          DeviceSlot slot = device.memory().allocate(rows.length());
          rows.takeFromPage(pages.get(position / 64), 0, head, position % 64, slot.buffer(), 0);
          slots.add(slot);
          pass.giveRow(head, i, slot, 0);
        }
      }
      pass.attendRows();
      float[] result = new float[query.length + 8];
      pass.finish(result, 0, result, query.length);
      slots.forEach(DeviceSlot::release);
      return result;
    }
  }

  private static float[] query(long seed) {
    return CodedHead.gaussian(new SplittableRandom(seed), 8 * 64, 1.2);
  }

  private static double relativeError(float[] actual, float[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += Math.pow(actual[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(difference / norm);
  }

  /**
   * Bf16 rows, odd lengths, from tiny values to the largest. Where scores are in the hundreds a
   * sketch says nothing any more, and what is chosen by it hangs on roundings: then sparse heads
   * must give numbers, and no more.
   */
  @ParameterizedTest
  @ValueSource(floats = {1e-3f, 1, 30, 500})
  void resultsAreThoseOfTheProcessor(float size) {
    LayerShape shape = shape(Short.BYTES);
    try (AttentionDevice gpu = LANES.device(BYTES);
        AttentionDevice cpu = new CpuDevice(BYTES)) {
      for (int tokens : new int[] {1, 63, 129, 777, 2501}) {
        for (HeadPolicy policy : List.of(HeadPolicy.DENSE, HeadPolicy.sparse(16, 300, .003f))) {
          Filled ours = filled(gpu, shape, tokens, size, policy);
          Filled theirs = filled(cpu, shape, tokens, size, policy);
          float[] query = query(tokens);
          float[] actual = ours.attend(policy, query);
          float[] expected = theirs.attend(policy, query);
          if (policy.dense() || size <= 1) {
            assertThat(relativeError(actual, expected))
                .as("%d tokens, %s", tokens, policy.residence())
                .isLessThan(1e-3);
          }
          for (float x : actual) {
            assertThat(x).isFinite();
          }
          var _ = ours.layer.release();
          var _ = theirs.layer.release();
        }
      }
      assertThat(gpu.memory().bytesUsed()).isZero();
    }
  }

  private static Filled filled(
      AttentionDevice device, LayerShape shape, int tokens, float size, HeadPolicy policy) {
    Filled filled = new Filled(device, 0, shape, 0, size);
    for (int head = 0; head < 2; head++) {
      filled.layer.hold(head, policy.residence(), List.of(), List.of());
    }
    filled.append(tokens, size, 77);
    return filled;
  }

  /** Appends to one layer while another is attended: both must come out as if alone. */
  @Test
  void lanesWorkBesideEachOther() {
    LayerShape shape = shape(Float.BYTES);
    try (AttentionDevice device = LANES.device(BYTES)) {
      Filled still = filled(device, shape, 1500, 1, HeadPolicy.DENSE);
      Filled growing = filled(device, shape, 100, 1, HeadPolicy.DENSE);
      float[] query = query(5);
      float[] alone = still.attend(HeadPolicy.DENSE, query);
      CompletableFuture<Void> appends =
          CompletableFuture.runAsync(() -> {
            for (int i = 0; i < 20; i++) {
              growing.append(70, 1, i);
            }
          });
      for (int i = 0; i < 20; i++) {
        assertThat(still.attend(HeadPolicy.DENSE, query)).isEqualTo(alone);
      }
      appends.join();
      assertThat(growing.layer.tokens()).isEqualTo(1500);
      var _ = still.layer.release();
      var _ = growing.layer.release();
    }
  }

  /** Layers go to the lane that holds least. */
  @Test
  void layersAreDealtOutToLanes() {
    long before = LANES.first().arena.bytesUsed();
    try (AttentionDevice device = LANES.device(BYTES)) {
      Filled one = filled(device, shape(4), 500, 1, HeadPolicy.DENSE);
      long first = LANES.first().arena.bytesUsed();
      Filled other = filled(device, shape(4), 500, 1, HeadPolicy.DENSE);
      assertThat(LANES.first().arena.bytesUsed()).isIn(first, before + first);
      assertThat(LANES.first().arena.bytesUsed() == first).isEqualTo(first > before);
      var _ = one.layer.release();
      var _ = other.layer.release();
    }
    assertThat(LANES.first().arena.bytesUsed()).isEqualTo(before);
  }

  /** A full lane refuses with numbers, changes nothing, and works on. */
  @Test
  void aFullLaneRefusesAndWorksOn() {
    LayerShape shape = shape(Float.BYTES);
    Lane lane = LANES.first();
    List<Place> taken = new ArrayList<>();
    try (AttentionDevice device = new TornadoDevice("one lane", List.of(lane), BYTES, false)) {
      Filled layer = filled(device, shape, 700, 1, HeadPolicy.DENSE);
      float[] query = query(6);
      float[] before = layer.attend(HeadPolicy.DENSE, query);
      while (lane.arena.bytesFree() > 64 << 10) {
        taken.add(Place.take(lane, Math.max(64, lane.arena.bytesFree() - (32 << 10))));
      }
      long used = device.memory().bytesUsed();
      assertThat(layer.layer.bytesLeft()).isLessThan(64 << 10);
      assertThatThrownBy(() -> layer.append(5000, 1, 3))
          .isInstanceOf(KvtierException.class)
          .hasMessageContaining("device memory is full")
          .hasMessageContaining("bytes of lane 0 are used");
      assertThat(layer.layer.tokens()).isEqualTo(700);
      assertThat(device.memory().bytesUsed()).isEqualTo(used);
      assertThat(layer.attend(HeadPolicy.DENSE, query)).isEqualTo(before);
      taken.forEach(Place::release);
      layer.append(500, 1, 3);
      assertThat(layer.layer.tokens()).isEqualTo(1200);
      var _ = layer.layer.release();
      assertThat(Arrays.asList(device.memory().bytesUsed())).containsExactly(0L);
    }
  }

  @Test
  void addressesAreRefusedWithAReason() {
    TornadoProvider provider = new TornadoProvider();
    assertThat(provider.devices()).isNotEmpty().allMatch(line -> line.startsWith("tornado:"));
    assertThatThrownBy(() -> provider.open("1", 1 << 20, doing -> {}))
        .hasMessageContaining("must be driver:device");
    assertThatThrownBy(() -> provider.open("7:0", 1 << 20, doing -> {}))
        .hasMessageContaining("there is no device tornado:7:0; there are: tornado:0:0");
    assertThatThrownBy(() -> provider.open("0:0", 1L << 50, doing -> {}))
        .hasMessageContaining("start the worker with fewer");
  }

  @Test
  void manyBytesTakeManyLanes() {
    assertThat(TornadoDevices.lanes(1 << 30, 6L << 30)).isEqualTo(2);
    assertThat(TornadoDevices.lanes(20L << 30, 3L << 30)).isEqualTo(8);
    for (long bytes = 1L << 30; bytes < 80L << 30; bytes += 1L << 30) {
      int lanes = TornadoDevices.lanes(bytes, 6L << 30);
      assertThat(bytes / lanes + bytes / lanes / 8 + (4 << 20)).isLessThanOrEqualTo(6L << 30);
    }
  }
}
