package io.kvtier.gpuworker.session;

import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.v1.Session;

/**
 * What a session takes on a worker's device in any plan.
 *
 * @param fixedBytes exact rows, and codes on their way through
 * @param pages whole pages that each layer has outside its window
 */
public record Footprint(long fixedBytes, int pages) {
  /** The footprint at so many tokens; the session's id does not matter. */
  public static Footprint of(Session info, int tokens) {
    LayerShape shape = Sessions.shapeOf(info);
    long staged = LayerStep.stagedBytes(shape, tokens, info.getDeviceBytesMax());
    long exact = info.getGeometry().getLayers() * shape.exactRowBytes();
    return new Footprint(exact + staged, shape.pages(tokens));
  }
}
