package io.kvtier.gpuworker.tornado;

import io.kvtier.KvtierException;
import io.kvtier.gpuworker.device.AttentionDevice;
import java.util.ArrayList;
import java.util.List;
import uk.ac.manchester.tornado.api.common.TornadoDevice;
import uk.ac.manchester.tornado.api.runtime.TornadoRuntimeProvider;

/** Lanes that the tests of a class share: each takes seconds to compile. */
public final class TestLanes implements AutoCloseable {
  private static final long BYTES = 512L << 20;

  private final List<Lane> lanes = new ArrayList<>();

  /** Opens so many, which cut choices as it suits the device. */
  public void start(int count) {
    start(count, device().getPhysicalDevice().getDeviceMaxComputeUnits());
  }

  private static TornadoDevice device() {
    return TornadoRuntimeProvider.getTornadoRuntime().getDefaultDevice();
  }

  /** Opens so many, which cut choices as if the device had so many compute units. */
  void start(int count, int computeUnits) {
    for (int i = 0; i < count; i++) {
      lanes.add(new Lane("lane " + i, device(), BYTES, computeUnits, graph -> {}));
    }
  }

  Lane first() {
    return lanes.getFirst();
  }

  /** A device on these lanes, which outlive it. */
  public AttentionDevice device(long bytesMax) {
    return new io.kvtier.gpuworker.tornado.TornadoDevice(
        "tornado under test", lanes, bytesMax, false);
  }

  /** Takes all room of the first lane but so many bytes, until closed. */
  public Filling filledUpTo(long bytesLeft) {
    List<Place> taken = new ArrayList<>();
    Arena arena = first().arena;
    for (long piece = arena.bytesFree(); piece >= WriteKernel.BLOCK * Integer.BYTES; ) {
      long wanted = Math.min(piece, arena.bytesFree() - bytesLeft);
      try {
        if (wanted < WriteKernel.BLOCK * Integer.BYTES) {
          break;
        }
        taken.add(Place.take(first(), wanted));
      } catch (KvtierException e) {
        piece /= 2;
      }
    }
    return () -> taken.forEach(Place::release);
  }

  /** What has been taken. */
  public interface Filling extends AutoCloseable {
    @Override
    void close();
  }

  @Override
  public void close() {
    lanes.forEach(Lane::close);
  }
}
