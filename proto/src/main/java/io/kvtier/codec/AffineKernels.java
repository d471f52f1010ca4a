package io.kvtier.codec;

import static io.kvtier.codec.Lanes.FLOATS;
import static io.kvtier.codec.Lanes.LANES;
import static io.kvtier.page.PageLayout.RANGE_GROUP;

import io.kvtier.page.PageLayout;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;

/**
 * The steps of the affine codecs over one head of a page: rows {@code [tokens][stride]}, codes
 * {@code [64][codeStride]}, ranges of keys {@code [headDim]}, of values {@code [64][groups]}.
 */
final class AffineKernels {
  private AffineKernels() {}

  static void keyExtremes(
      float[] rows, int at, int stride, int tokens, int headDim, float[] minima, float[] maxima) {
    System.arraycopy(rows, at, minima, 0, headDim);
    System.arraycopy(rows, at, maxima, 0, headDim);
    for (int t = 1; t < tokens; t++) {
      int row = at + t * stride;
      for (int i = 0; i < headDim; i += LANES) {
        FloatVector x = FloatVector.fromArray(FLOATS, rows, row + i);
        AffineLanes.less(x, FloatVector.fromArray(FLOATS, minima, i)).intoArray(minima, i);
        AffineLanes.greater(x, FloatVector.fromArray(FLOATS, maxima, i)).intoArray(maxima, i);
      }
    }
  }

  static void valueExtremes(
      float[] rows, int at, int stride, int tokens, int headDim, float[] minima, float[] maxima) {
    int range = 0;
    for (int t = 0; t < tokens; t++) {
      int end = at + t * stride + headDim;
      for (int from = at + t * stride; from < end; from += RANGE_GROUP) {
        FloatVector min = FloatVector.fromArray(FLOATS, rows, from);
        FloatVector max = min;
        for (int i = from; i < Math.min(from + RANGE_GROUP, end); i += LANES) {
          FloatVector x = FloatVector.fromArray(FLOATS, rows, i);
          min = AffineLanes.less(x, min);
          max = AffineLanes.greater(x, max);
        }
        minima[range] = min.reduceLanes(VectorOperators.MIN);
        maxima[range++] = max.reduceLanes(VectorOperators.MAX);
      }
    }
  }

  static void quantizeKeys(
      float[] rows,
      int at,
      int stride,
      int tokens,
      int headDim,
      float[] zeros,
      float[] steps,
      int codeMax,
      byte[] codes,
      int codeStride) {
    for (int i = 0; i < headDim; i += LANES) {
      FloatVector zero = FloatVector.fromArray(FLOATS, zeros, i);
      FloatVector step = FloatVector.fromArray(FLOATS, steps, i);
      for (int t = 0; t < tokens; t++) {
        FloatVector x = FloatVector.fromArray(FLOATS, rows, at + t * stride + i);
        Lanes.storeCodes(AffineLanes.codeOf(x, zero, step, codeMax), codes, t * codeStride + i);
      }
    }
  }

  static void quantizeValues(
      float[] rows,
      int at,
      int stride,
      int tokens,
      int headDim,
      float[] zeros,
      float[] steps,
      int codeMax,
      byte[] codes,
      int codeStride) {
    int groups = PageLayout.rangeGroups(headDim);
    for (int i = 0; i < headDim; i += LANES) {
      int range = i / RANGE_GROUP;
      for (int t = 0; t < tokens; t++) {
        FloatVector x = FloatVector.fromArray(FLOATS, rows, at + t * stride + i);
        FloatVector zero = FloatVector.broadcast(FLOATS, zeros[range + t * groups]);
        FloatVector step = FloatVector.broadcast(FLOATS, steps[range + t * groups]);
        Lanes.storeCodes(AffineLanes.codeOf(x, zero, step, codeMax), codes, t * codeStride + i);
      }
    }
  }

  static void decodeKeys(
      byte[] codes,
      int codeStride,
      int headDim,
      float[] zeros,
      float[] steps,
      float[] rows,
      int at,
      int stride,
      int tokens) {
    for (int t = 0; t < tokens; t++) {
      int row = at + t * stride;
      for (int i = 0; i < headDim; i += LANES) {
        FloatVector zero = FloatVector.fromArray(FLOATS, zeros, i);
        FloatVector step = FloatVector.fromArray(FLOATS, steps, i);
        zero.add(step.mul(AffineLanes.levels(codes, t * codeStride + i))).intoArray(rows, row + i);
      }
    }
  }

  static void decodeValues(
      byte[] codes,
      int codeStride,
      int headDim,
      float[] zeros,
      float[] steps,
      float[] rows,
      int at,
      int stride,
      int tokens) {
    int groups = PageLayout.rangeGroups(headDim);
    for (int t = 0; t < tokens; t++) {
      int row = at + t * stride;
      for (int i = 0; i < headDim; i += LANES) {
        int range = t * groups + i / RANGE_GROUP;
        FloatVector zero = FloatVector.broadcast(FLOATS, zeros[range]);
        FloatVector step = FloatVector.broadcast(FLOATS, steps[range]);
        zero.add(step.mul(AffineLanes.levels(codes, t * codeStride + i))).intoArray(rows, row + i);
      }
    }
  }
}
