package io.kvtier.gpuworker.tornado;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.LayerShape;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import uk.ac.manchester.tornado.api.runtime.TornadoRuntimeProvider;

/** Lanes beside each other, against the processor, and when they are full. */
class LanesTest {
  private static final TestLanes LANES = new TestLanes();
  private static final long BYTES = 256L << 20;

  @BeforeAll
  static void start() {
    LANES.start(2);
  }

  @AfterAll
  static void stop() {
    LANES.close();
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
    LayerShape shape = Filled.shape(Short.BYTES);
    try (AttentionDevice gpu = LANES.device(BYTES);
        AttentionDevice cpu = new CpuDevice(BYTES)) {
      for (int tokens : new int[] {1, 63, 129, 777, 2501}) {
        for (HeadPolicy policy : List.of(HeadPolicy.DENSE, HeadPolicy.sparse(16, 300, .003f))) {
          Filled ours = Filled.with(gpu, shape, tokens, size, policy);
          Filled theirs = Filled.with(cpu, shape, tokens, size, policy);
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

  /** More chosen tokens than come back with the choice, in batches of rows and slots of many. */
  @Test
  void longChoicesComeBackWhole() {
    HeadPolicy policy = HeadPolicy.sparse(9000, 9000, 0);
    assertThat(2 * 2 * policy.tokensMax()).isGreaterThan(StepLayout.CHOSEN_NEAR);
    try (AttentionDevice gpu = LANES.device(BYTES);
        AttentionDevice cpu = new CpuDevice(BYTES)) {
      Filled ours = Filled.with(gpu, Filled.shape(Short.BYTES), 9300, 1, policy);
      Filled theirs = Filled.with(cpu, Filled.shape(Short.BYTES), 9300, 1, policy);
      float[] query = query(9);
      assertThat(relativeError(ours.attend(policy, query), theirs.attend(policy, query)))
          .isLessThan(1e-3);
      var _ = ours.layer.release();
      var _ = theirs.layer.release();
    }
  }

  /** Appends to one layer while another is attended: both must come out as if alone. */
  @Test
  void lanesWorkBesideEachOther() {
    LayerShape shape = Filled.shape(Float.BYTES);
    try (AttentionDevice device = LANES.device(BYTES)) {
      Filled still = Filled.with(device, shape, 1500, 1, HeadPolicy.DENSE);
      Filled growing = Filled.with(device, shape, 100, 1, HeadPolicy.DENSE);
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
      Filled one = Filled.with(device, Filled.shape(4), 500, 1, HeadPolicy.DENSE);
      long first = LANES.first().arena.bytesUsed();
      Filled other = Filled.with(device, Filled.shape(4), 500, 1, HeadPolicy.DENSE);
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
    LayerShape shape = Filled.shape(Float.BYTES);
    Lane lane = LANES.first();
    List<Place> taken = new ArrayList<>();
    try (AttentionDevice device = new TornadoDevice("one lane", List.of(lane), BYTES, false)) {
      Filled layer = Filled.with(device, shape, 700, 1, HeadPolicy.DENSE);
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

  /** More than TornadoVM may allot, as on a card whose memory others use. */
  @Test
  void aLaneThatTheDeviceHasNoRoomForIsRefused() {
    uk.ac.manchester.tornado.api.common.TornadoDevice device =
        TornadoRuntimeProvider.getTornadoRuntime().getDefaultDevice();
    assertThatThrownBy(() -> new Lane("a large lane", device, 4200L << 20, 1, graph -> {}))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("the device has no room for a large lane")
        .hasMessageContaining("fewer device bytes");
    try (AttentionDevice others = LANES.device(BYTES)) {
      Filled layer = Filled.with(others, Filled.shape(Float.BYTES), 200, 1, HeadPolicy.DENSE);
      assertThat(layer.attend(HeadPolicy.DENSE, query(5))).doesNotContain(Float.NaN);
      var _ = layer.layer.release();
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
