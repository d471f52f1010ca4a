package io.kvtier.gpuworker.device;

import static io.kvtier.gpuworker.device.Attended.query;
import static io.kvtier.gpuworker.device.Attended.relativeError;
import static io.kvtier.gpuworker.device.Attended.requireOracle;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.withinPercentage;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.page.Residence;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** How every device's layers must grow, fork, take pages over and read back. */
public abstract class DeviceLayerContractTest {
  private static final long MEMORY = 256L << 20;

  /** A device with so many bytes for sessions. */
  protected abstract AttentionDevice device(long bytesMax);

  @Test
  void forksShareThePagesAndGoOnApart() {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(4, 2, 64);
      List<HeadPolicy> dense = Collections.nCopies(2, HeadPolicy.DENSE);
      LayerFixture fixture = new LayerFixture(device, shape, 1000, dense, 8);
      long before = device.memory().bytesUsed();
      DeviceLayer fork = fixture.layer.fork();
      assertThat(device.memory().bytesUsed() - before).isEqualTo(shape.exactRowBytes());
      float[] more = new float[200 * shape.rowLength()];
      fork.append(more, more, 200, new LayerFixture(device, shape, 1, dense, 1));
      assertThat(fork.tokens()).isEqualTo(1200);
      assertThat(fixture.layer.tokens()).isEqualTo(1000);
      requireOracle(fixture, dense, query(shape, 4), 1e-3);
      int pages = fork.pages();
      assertThat(fixture.layer.release()).isEmpty();
      assertThat(fork.release()).hasSize(pages);
    }
  }

  @Test
  void anAppendThatDoesNotFitChangesNothing() {
    LayerShape shape = LayerFixture.shape(4, 2, 64);
    try (AttentionDevice device = device(1 << 20)) {
      List<HeadPolicy> dense = Collections.nCopies(2, HeadPolicy.DENSE);
      LayerFixture fixture = new LayerFixture(device, shape, 100, dense, 8);
      long before = device.memory().bytesUsed();
      float[] rows = new float[10_000 * shape.rowLength()];
      assertThatThrownBy(() -> fixture.layer.append(rows, rows, 10_000, fixture))
          .isInstanceOf(KvtierException.class)
          .hasMessageContaining("device memory is full");
      assertThat(device.memory().bytesUsed()).isEqualTo(before);
      assertThat(fixture.layer.tokens()).isEqualTo(100);
      assertThat(fixture.pages).isEmpty();
    }
  }

  @ParameterizedTest
  @EnumSource(Residence.class)
  void rowsReadBackAreThoseOfThePages(Residence residence) {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(4, 2, 64);
      List<HeadPolicy> all = Collections.nCopies(2, new HeadPolicy(residence, 500, 500, 0));
      LayerFixture fixture = new LayerFixture(device, shape, 500, all, 3);
      float[] decodedKeys = fixture.decoded(true);
      float[] key = new float[64];
      for (int page = 0; page < fixture.layer.pages(); page++) {
        for (int head = 0; head < 2; head++) {
          int position = page * 64 + 63;
          DeviceSlot codes = fixture.sections(page, head, residence.codes(fixture.shape.layout()));
          fixture.layer.readRow(head, position, codes, key, new float[64], 0);
          codes.release();
          int at = position * shape.rowLength() + head * 64;
          assertThat(relativeError(key, Arrays.copyOfRange(decodedKeys, at, at + 64)))
              .isLessThan(1e-5);
        }
      }
    }
  }

  /**
   * What one plane leaves of a normal key's element is .3634 of its variance (Max, 1960), times the
   * query's square norm over the head dim.
   */
  @Test
  void theErrorOfScoresByOnePlaneIsKnown() {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(4, 2, 64);
      List<HeadPolicy> sketched =
          Collections.nCopies(2, new HeadPolicy(Residence.ONE_PLANE, 500, 500, 0));
      LayerFixture fixture = new LayerFixture(device, shape, 1000, sketched, 3);
      float[] query = query(shape, 4);
      double expected = 0;
      for (int i = 2 * 64; i < 4 * 64; i++) {
        // Deviation 2 of the fixture's keys; two q heads share KV head 1.
        expected += .3634 * 4 * query[i] * query[i] / 64 / 2;
      }
      assertThat(fixture.layer.scoreVariance(1, query, 0)).isCloseTo(expected, withinPercentage(6));
    }
  }

  /**
   * A layer that begins with stored pages attends as the one that stored them, to the bit: also
   * after it has grown by pages of its own, and with heads of every residence.
   */
  @ParameterizedTest
  @ValueSource(ints = {1, 7, 14})
  void aRestoredLayerAttendsLikeTheOneThatStoredIt(int restored) {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(8, 4, 64);
      List<HeadPolicy> mixed =
          Stream.of(Residence.values()).map(r -> new HeadPolicy(r, 50, 200, .01f)).toList();
      LayerFixture first = new LayerFixture(device, shape, 1000, mixed, 12);
      assertThat(first.layer.pages()).isEqualTo(14);
      LayerFixture second = first.restored(device, restored, mixed);
      assertThat(second.layer.tokens()).isEqualTo(1000);
      assertThat(second.layer.pages()).isEqualTo(14);
      assertThat(second.layer.pageKeys()).isEqualTo(first.layer.pageKeys());
      assertThat(second.layer.residentBytes()).isEqualTo(first.layer.residentBytes());
      for (int seed = 0; seed < 3; seed++) {
        float[] query = query(shape, seed);
        Attended expected = Attended.by(first, mixed, query);
        Attended actual = Attended.by(second, mixed, query);
        assertThat(actual.output).isEqualTo(expected.output);
        assertThat(actual.lse).isEqualTo(expected.lse);
      }
      first.layer.release();
      second.layer.release();
      assertThat(device.memory().bytesUsed()).isZero();
    }
  }

  /** Planted: a page is another one, or a sink's row is lost. Both must show. */
  @Test
  void aWronglyRestoredLayerAttendsOtherwise() {
    try (AttentionDevice device = device(MEMORY)) {
      LayerShape shape = LayerFixture.shape(8, 4, 64);
      List<HeadPolicy> dense = Collections.nCopies(4, HeadPolicy.DENSE);
      LayerFixture first = new LayerFixture(device, shape, 1000, dense, 12);
      float[] query = query(shape, 3);
      float[] expected = Attended.by(first, dense, query).output;
      byte[] page = first.pages.set(3, first.pages.get(4));
      float[] wrongPage = Attended.by(first.restored(device, 7, dense), dense, query).output;
      assertThat(relativeError(wrongPage, expected)).isGreaterThan(.002);
      first.pages.set(3, page);
      Arrays.fill(first.values, 0, shape.rowLength(), 0);
      float[] lostSink = Attended.by(first.restored(device, 7, dense), dense, query).output;
      assertThat(relativeError(lostSink, expected)).isGreaterThan(1e-4);
    }
  }
}
