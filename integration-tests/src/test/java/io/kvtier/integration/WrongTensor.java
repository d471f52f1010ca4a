package io.kvtier.integration;

import com.google.protobuf.ByteString;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * A tensor that is refused wherever {@code [..][heads][headDim]} of fp32 is right.
 *
 * @param name what is wrong with it
 * @param mentions what the refusal must name
 */
record WrongTensor(String name, Tensor tensor, String... mentions) {
  /** Everything that can be wrong with a tensor of this shape. */
  static List<WrongTensor> variants(int... shape) {
    List<WrongTensor> variants = new ArrayList<>(wrongShapes(shape));
    variants.addAll(wrongBytes(shape));
    variants.addAll(wrongElements(shape));
    return variants;
  }

  /** Right in everything but that keys and values must be of the session's kv_dtype. */
  static WrongTensor wrongKvDtype(int... shape) {
    return new WrongTensor(
        "of bf16 in a session of fp32",
        Tensors.of(Dtype.DTYPE_BF16, new float[product(shape)], shape),
        "DTYPE_BF16",
        "DTYPE_FP32");
  }

  private static List<WrongTensor> wrongShapes(int... shape) {
    Tensor right = zeros(shape);
    int last = shape.length - 1;
    int[] swapped = shape.clone();
    swapped[last] = shape[last - 1];
    swapped[last - 1] = shape[last];
    int[] wider = shape.clone();
    wider[last]++;
    int[] endless = shape.clone();
    endless[0] = 0xFFFF_FFFF;
    int[] deeper = new int[shape.length + 1];
    Arrays.fill(deeper, 1);
    System.arraycopy(shape, 0, deeper, 1, shape.length);
    return List.of(
        new WrongTensor("absent", Tensor.getDefaultInstance()),
        new WrongTensor("without shape", right.toBuilder().clearShape().build(), "shape"),
        new WrongTensor("flat", reshaped(right, product(shape)), "" + product(shape)),
        new WrongTensor("with swapped extents", reshaped(right, swapped), "" + shape[last]),
        new WrongTensor("one dimension wider", zeros(wider), "" + wider[last], "" + shape[last]),
        new WrongTensor("with a dimension too many", reshaped(right, deeper), "shape"),
        new WrongTensor("of 5 dimensions", reshaped(right, 1, 1, 1, 1, 1), "shape"),
        new WrongTensor("of 2^32-1 rows", reshaped(right, endless), "4294967295"),
        new WrongTensor("of 2^64 elements", reshaped(right, 65536, 65536, 65536, 65536), "65536"),
        new WrongTensor(
            "of 2^63 elements in right rank",
            reshaped(right, Arrays.copyOf(new int[] {1 << 21, 1 << 21, 1 << 21}, shape.length)),
            "2097152"));
  }

  private static List<WrongTensor> wrongBytes(int... shape) {
    Tensor right = zeros(shape);
    int length = right.getData().size();
    String expected = "" + length;
    return List.of(
        new WrongTensor(
            "without dtype", right.toBuilder().clearDtype().build(), "dtype", "UNSPECIFIED"),
        new WrongTensor("of dtype 7", right.toBuilder().setDtypeValue(7).build(), "dtype"),
        new WrongTensor("without data", withData(right, 0), "0", expected),
        new WrongTensor("one byte short", withData(right, length - 1), "" + (length - 1), expected),
        new WrongTensor(
            "one element long", withData(right, length + 4), "" + (length + 4), expected));
  }

  private static List<WrongTensor> wrongElements(int... shape) {
    return List.of(
        withElement(Float.NaN, "NaN", shape),
        withElement(Float.POSITIVE_INFINITY, "Infinity", shape),
        withElement(Float.NEGATIVE_INFINITY, "-Infinity", shape),
        withElement(4097, "4097", shape),
        withElement(-Float.MAX_VALUE, "-3.4", shape));
  }

  /** The last element is wrong; its index must be told. */
  private static WrongTensor withElement(float value, String printed, int... shape) {
    float[] elements = new float[product(shape)];
    elements[elements.length - 1] = value;
    StringBuilder index = new StringBuilder();
    for (int extent : shape) {
      index.append('[').append(extent - 1).append(']');
    }
    return new WrongTensor(
        "with " + value,
        Tensors.of(Dtype.DTYPE_FP32, elements, shape),
        printed,
        "4096",
        index.toString());
  }

  private static Tensor zeros(int... shape) {
    return Tensors.of(Dtype.DTYPE_FP32, new float[product(shape)], shape);
  }

  private static Tensor reshaped(Tensor tensor, int... shape) {
    Tensor.Builder reshaped = tensor.toBuilder().clearShape();
    for (int extent : shape) {
      reshaped.addShape(extent);
    }
    return reshaped.build();
  }

  private static Tensor withData(Tensor tensor, int length) {
    return tensor.toBuilder().setData(ByteString.copyFrom(new byte[length])).build();
  }

  private static int product(int... shape) {
    int product = 1;
    for (int extent : shape) {
      product *= extent;
    }
    return product;
  }
}
