package io.kvtier.gpuworker.session;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.gpuworker.core.HeadPolicy;
import io.kvtier.gpuworker.device.DeviceMemory;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.tailor.TailorLayer;
import io.kvtier.rpc.TailorFootprint;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.List;

/**
 * Device bytes of a session in TailorKV mode, whose rows lie on the heap: counted as the method
 * would take them, and bounded like everybody's. Others make room for them as for any session's
 * that comes; the method itself demotes nothing, so what does not fit then is refused. Counts
 * nothing for a session in another mode. Safe for any number of threads.
 */
final class TailorMemory {
  private final Session info;
  private final TailorFootprint footprint;
  private final DeviceMemory memory;
  private final DevicePool pool;

  /** Of all layers, or empty: another mode. */
  private final List<TailorLayer> layers = new ArrayList<>();

  /** {@code [layers]}: tokens that room is held for. */
  private final int[] tokens;

  /** {@code [layers][kvHeads]}; empty before the plan, when the method holds nothing. */
  private List<List<HeadPolicy>> policies = List.of();

  private long held;

  /** A session without a plan, of layers that nobody uses yet. */
  TailorMemory(
      Session info, LayerShape shape, DeviceMemory memory, DevicePool pool, SessionLayer[] all) {
    this.pool = pool;
    this.info = info;
    this.footprint = new TailorFootprint(shape.kvHeads(), shape.headDim());
    this.memory = memory;
    this.tokens = new int[all.length];
    for (SessionLayer layer : all) {
      if (layer.device instanceof TailorLayer ofMethod) {
        layers.add(ofMethod);
      }
    }
  }

  /**
   * Brings all layers under policies; no layer moves meanwhile.
   *
   * @throws KvtierException EXHAUSTED if they do not fit; nothing has changed
   */
  synchronized void place(List<List<HeadPolicy>> others) {
    for (int layer = 0; layer < layers.size(); layer++) {
      tokens[layer] = layers.get(layer).tokens();
    }
    resize(bytes(others));
    policies = others;
    for (int layer = 0; layer < layers.size(); layer++) {
      layers.get(layer).place(others.get(layer));
    }
  }

  /**
   * Takes room for more tokens of a layer; the caller holds its lock.
   *
   * @throws KvtierException EXHAUSTED if there is none; nothing has changed
   */
  synchronized void requireRoom(SessionLayer target, int more) {
    if (layers.isEmpty() || policies.isEmpty()) {
      return;
    }
    int layer = layers.indexOf(target.device);
    int before = tokens[layer];
    tokens[layer] = target.device.tokens() + more;
    try {
      resize(bytes(policies));
    } catch (KvtierException e) {
      tokens[layer] = before;
      throw e;
    }
  }

  /** Bytes of the buffers that the layers share. */
  synchronized long bufferBytes() {
    return bufferBytes(policies);
  }

  /** Gives all back; the session is used no more. */
  synchronized void release() {
    policies = List.of();
    resize(0);
  }

  private long bytes(List<List<HeadPolicy>> placed) {
    long bytes = bufferBytes(placed);
    for (int layer = 0; layer < layers.size(); layer++) {
      bytes += layers.get(layer).bytes(placed.get(layer), tokens[layer]);
    }
    return bytes;
  }

  private long bufferBytes(List<List<HeadPolicy>> placed) {
    int longest = 0;
    int chosen = 0;
    for (int layer = 0; layer < layers.size() && !placed.isEmpty(); layer++) {
      HeadPolicy ofAll = placed.get(layer).getFirst();
      if (!ofAll.dense()) {
        longest = Math.max(longest, tokens[layer]);
        chosen = Math.max(chosen, ofAll.tokensMax());
      }
    }
    return footprint.channelBytes(longest) + footprint.chosenBytes(chosen);
  }

  private void resize(long bytes) {
    long max = info.getDeviceBytesMax();
    if (max != 0 && bytes > max) {
      throw new KvtierException(
          Code.EXHAUSTED,
          ("device_bytes_max is %d and TailorKV's method takes %d under the session's plan, of"
               + " which it has %d; open the session with at least as many, or with a plan of fewer"
               + " dominant tokens or dense layers")
              .formatted(max, bytes, held));
    }
    if (bytes > held) {
      pool.makeRoomBesideHeads(bytes - held, bytes);
      memory.occupy(bytes - held);
    } else {
      memory.vacate(held - bytes);
    }
    held = bytes;
  }
}
