package io.kvtier.rpc;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.kvtier.KvtierException;
import io.kvtier.codec.RawRows;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.ShortBuffer;
import java.util.Arrays;
import java.util.stream.Collectors;

/** Tensors on the wire and arrays in the heap. Both directions copy. */
public final class Tensors {
  private static final int SHOWN_EXTENTS = 8;

  private Tensors() {}

  /** Bytes of one element. */
  public static int elementBytes(Dtype dtype) {
    return switch (dtype) {
      case DTYPE_FP32 -> Float.BYTES;
      case DTYPE_BF16 -> Short.BYTES;
      case DTYPE_UNSPECIFIED, UNRECOGNIZED ->
          throw KvtierException.invalid("dtype is %s; it must be DTYPE_FP32 or DTYPE_BF16", dtype);
    };
  }

  /**
   * Reads a tensor after checking its shape, its dtype, its length and that every element is
   * finite.
   *
   * @param name names the tensor in a refusal
   * @param shape the shape it must have
   * @return the elements, row-major
   * @throws KvtierException INVALID with name, value and bound
   */
  public static float[] toFloats(String name, Tensor tensor, int... shape) {
    int elements = requireShape(name, tensor, shape);
    float[] values = new float[elements];
    ByteBuffer bytes = tensor.getData().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    if (tensor.getDtype() == Dtype.DTYPE_FP32) {
      bytes.asFloatBuffer().get(values);
    } else {
      ShortBuffer shorts = bytes.asShortBuffer();
      for (int i = 0; i < elements; i++) {
        values[i] = RawRows.ofBf16(shorts.get(i));
      }
    }
    requireFinite(name, values, shape);
    return values;
  }

  /**
   * Checks a tensor's dtype.
   *
   * @throws KvtierException INVALID with name, value and what it must be
   */
  public static void requireDtype(String name, Tensor tensor, Dtype dtype) {
    if (tensor.getDtype() != dtype) {
      throw KvtierException.invalid(
          "%s is of %s; it must be of the session's kv_dtype, %s", name, tensor.getDtype(), dtype);
    }
  }

  /**
   * Rows along the first dimension of a tensor whose other extents are known; its contents are not
   * read.
   */
  public static int rows(String name, Tensor tensor, int rowsMax, int... rowShape) {
    if (tensor.getShapeCount() != rowShape.length + 1) {
      throw shapeRefusal(name, tensor, "[n]" + Arrays.toString(rowShape));
    }
    int rows = tensor.getShape(0);
    if (rows < 1 || rows > rowsMax) {
      throw KvtierException.invalid(
          "%s has %d rows (shape %s); it must have 1..%d",
          name, Integer.toUnsignedLong(rows), unsigned(tensor), rowsMax);
    }
    return rows;
  }

  /**
   * Checks that an array holds what a tensor of some rows needs.
   *
   * @throws KvtierException INVALID with name, length and need
   */
  public static void requireElements(String name, float[] values, int rows, int... rowShape) {
    long needed = rows;
    for (int extent : rowShape) {
      needed *= extent;
    }
    if (rows < 0 || values.length < needed) {
      throw KvtierException.invalid(
          "%s has %d elements; %d rows of %s need %d",
          name, values.length, rows, Arrays.toString(rowShape), needed);
    }
  }

  /** Packs the first {@code product(shape)} elements; bf16 rounds to nearest, ties to even. */
  public static Tensor of(Dtype dtype, float[] values, int... shape) {
    return slice(dtype, values, 0, shape);
  }

  /**
   * Packs {@code product(shape)} elements from {@code from} on; bf16 rounds to nearest, ties to
   * even.
   */
  public static Tensor slice(Dtype dtype, float[] values, int from, int... shape) {
    long elements = 1;
    Tensor.Builder builder = Tensor.newBuilder().setDtype(dtype);
    for (int extent : shape) {
      elements *= extent;
      builder.addShape(extent);
    }
    if (elements < 0 || from < 0 || from + elements > values.length) {
      throw KvtierException.invalid(
          "an array has %d elements from %d on; shape %s needs %d",
          values.length - (long) from, from, Arrays.toString(shape), elements);
    }
    int count = (int) elements;
    ByteBuffer bytes =
        ByteBuffer.allocate(count * elementBytes(dtype)).order(ByteOrder.LITTLE_ENDIAN);
    if (dtype == Dtype.DTYPE_FP32) {
      FloatBuffer floats = bytes.asFloatBuffer();
      floats.put(values, from, count);
    } else {
      ShortBuffer shorts = bytes.asShortBuffer();
      for (int i = 0; i < count; i++) {
        shorts.put(i, RawRows.toBf16(values[from + i]));
      }
    }
    // The array is ours alone and never written again.
    ByteString data = UnsafeByteOperations.unsafeWrap(bytes.array());
    return builder.setData(data).build();
  }

  private static int requireShape(String name, Tensor tensor, int[] shape) {
    boolean same = tensor.getShapeCount() == shape.length;
    long elements = 1;
    for (int i = 0; same && i < shape.length; i++) {
      same = tensor.getShape(i) == shape[i];
      elements *= shape[i];
    }
    if (!same) {
      throw shapeRefusal(name, tensor, Arrays.toString(shape));
    }
    long bytes = elements * elementBytes(tensor.getDtype());
    if (tensor.getData().size() != bytes) {
      throw KvtierException.invalid(
          "%s has %d bytes; shape %s of %s needs %d",
          name, tensor.getData().size(), Arrays.toString(shape), tensor.getDtype(), bytes);
    }
    return Math.toIntExact(elements);
  }

  /** The shape as it was meant on the wire; a refusal shows no more than a few extents. */
  private static String unsigned(Tensor tensor) {
    String extents =
        tensor.getShapeList().stream()
            .limit(SHOWN_EXTENTS)
            .map(Integer::toUnsignedString)
            .collect(Collectors.joining(", "));
    return "[" + extents + (tensor.getShapeCount() > SHOWN_EXTENTS ? ", ...]" : "]");
  }

  private static KvtierException shapeRefusal(String name, Tensor tensor, String expected) {
    return KvtierException.invalid(
        "%s has shape %s; it must have %s", name, unsigned(tensor), expected);
  }

  private static void requireFinite(String name, float[] values, int[] shape) {
    for (int i = 0; i < values.length; i++) {
      if (!(Math.abs(values[i]) <= RawRows.MAGNITUDE_MAX)) {
        throw KvtierException.invalid(
            "%s%s is %s; it must be finite and at most %s in magnitude",
            name, indexOf(i, shape), values[i], RawRows.MAGNITUDE_MAX);
      }
    }
  }

  private static String indexOf(int flat, int[] shape) {
    StringBuilder index = new StringBuilder("]");
    int rest = flat;
    for (int dim = shape.length - 1; dim >= 0; dim--) {
      index.insert(0, rest % shape[dim]);
      index.insert(0, dim == 0 ? "[" : "][");
      rest /= shape[dim];
    }
    return index.toString();
  }
}
