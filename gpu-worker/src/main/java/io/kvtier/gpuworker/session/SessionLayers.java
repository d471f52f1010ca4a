package io.kvtier.gpuworker.session;

import static io.kvtier.KvtierException.invalid;
import static io.kvtier.KvtierException.precondition;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.device.DeviceLayer;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.gpuworker.tailor.TailorLayer;
import io.kvtier.page.PageKey;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import io.kvtier.v1.SessionBytes;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;
import java.util.stream.IntStream;

/** The layers of a session, one by one and all together. */
final class SessionLayers {
  private final LayerShape shape;
  private final SessionLayer[] layers;

  /** Layers in order; the array is taken over. */
  SessionLayers(LayerShape shape, SessionLayer[] layers) {
    this.shape = shape;
    this.layers = layers;
  }

  int count() {
    return layers.length;
  }

  /** TailorKV's method places whole layers and pages nothing out. */
  static DeviceLayer emptyLayer(int layer, Session info, LayerShape shape, AttentionDevice device) {
    return info.getMode() == PlanMode.PLAN_MODE_TAILORKV
        ? new TailorLayer(info.getDeviceBytesMax() > 0, shape)
        : device.newLayer(layer, shape);
  }

  /** Bytes of pages that are full and not encoded yet. */
  long leftBytes() {
    long bytes = 0;
    for (SessionLayer layer : layers) {
      bytes += layer.hasLeft() ? shape.layout().pageLength() : 0;
    }
    return bytes;
  }

  /** All of them; not to be written to. */
  SessionLayer[] all() {
    return layers;
  }

  /**
   * A layer.
   *
   * @throws io.kvtier.KvtierException INVALID if there is none of that index
   */
  SessionLayer get(int layer) {
    if (layer < 0 || layer >= layers.length) {
      throw invalid(
          "layer is %s; it must be 0..%d", Integer.toUnsignedString(layer), layers.length - 1);
    }
    return layers[layer];
  }

  /** Runs a call while no layer is in another's hands; locks are taken in the order of layers. */
  @CanIgnoreReturnValue
  <T> T whileStill(Supplier<T> call) {
    int locked = 0;
    try {
      for (; locked < layers.length; locked++) {
        layers[locked].enter();
      }
      return call.get();
    } finally {
      while (locked > 0) {
        layers[--locked].leave();
      }
    }
  }

  /** Tokens of a layer. */
  int tokens(int layer) {
    SessionLayer target = get(layer);
    target.enter();
    try {
      return target.device.tokens();
    } finally {
      target.leave();
    }
  }

  /** Tokens of each layer. */
  int[] tokens() {
    return IntStream.range(0, layers.length).map(this::tokens).toArray();
  }

  /** Refuses unless each layer has so many tokens. The caller holds the locks. */
  void requireTokens(int tokens) {
    for (int layer = 0; layer < layers.length; layer++) {
      int have = layers[layer].device.tokens();
      if (have != tokens) {
        throw precondition(
            "finish says %d tokens, layer %d has %d; send the rest first", tokens, layer, have);
      }
    }
  }

  /** Refuses unless all layers have as many tokens; how many. The caller holds the locks. */
  int requireEven() {
    int tokens = layers[0].device.tokens();
    for (int layer = 1; layer < layers.length; layer++) {
      int have = layers[layer].device.tokens();
      if (have != tokens) {
        throw precondition(
            "layer 0 has %d tokens, layer %d has %d; fork between steps", tokens, layer, have);
      }
    }
    return tokens;
  }

  /** Bytes on the device, what is staged and the hot set left out. */
  long residentBytes() {
    long bytes = 0;
    for (SessionLayer layer : layers) {
      bytes += layer.device.residentBytes();
    }
    return bytes;
  }

  /** The session's bytes, {@code device} of them on the device. */
  SessionBytes bytes(long device) {
    long tokens = 0;
    long pages = 0;
    for (SessionLayer layer : layers) {
      tokens += layer.device.tokens();
      pages += layer.device.pages();
    }
    return SessionBytes.newBuilder()
        .setDevice(device)
        .setDeviceFull(tokens * shape.rowLength() * 2 * Short.BYTES)
        .setTier(pages * shape.layout().pageLength())
        .build();
  }

  /** Frees all; returns the keys of the pages that no fork shares. */
  static List<PageKey> release(SessionLayer[] layers) {
    List<PageKey> unshared = new ArrayList<>();
    for (SessionLayer layer : layers) {
      if (layer != null) {
        layer.rows.reset(0);
        unshared.addAll(layer.device.release());
      }
    }
    return unshared;
  }
}
