package io.kvtier.gpuworker.cpu;

import io.kvtier.codec.Rotation;
import io.kvtier.gpuworker.device.LayerShape;

/** The queries of one group, divided by √headDim: as they are, and rotated. One thread. */
final class GroupQuery {
  private final int group;
  private final int headDim;
  private final Rotation rotation;

  /** {@code [group][headDim]}, divided by √headDim. */
  final float[] plain;

  /** {@code [group][headDim]}, divided by √headDim and rotated. */
  final float[] rotated;

  GroupQuery(LayerShape shape, Rotation rotation) {
    this.group = shape.group();
    this.headDim = shape.headDim();
    this.rotation = rotation;
    this.plain = new float[group * headDim];
    this.rotated = new float[group * headDim];
  }

  /** Takes the group's queries from {@code [group][headDim]} at {@code at}. */
  void load(float[] queries, int at) {
    float scale = (float) (1 / Math.sqrt(headDim));
    for (int i = 0; i < group * headDim; i++) {
      plain[i] = queries[at + i] * scale;
      rotated[i] = plain[i];
    }
    for (int g = 0; g < group; g++) {
      rotation.apply(rotated, g * headDim);
    }
  }
}
