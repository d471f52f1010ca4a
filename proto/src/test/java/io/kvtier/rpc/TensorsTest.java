package io.kvtier.rpc;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Tensor;
import org.junit.jupiter.api.Test;

class TensorsTest {
  @Test
  void fp32IsExactAndBf16RoundsToNearestEven() {
    float[] x = {1f, -2.5f, 0f, Float.MIN_VALUE, 4096f, 1 + 1f / 256, 1 + 3f / 256};
    assertThat(Tensors.toFloats("x", Tensors.of(Dtype.DTYPE_FP32, x, 7), 7)).isEqualTo(x);
    float[] rounded = Tensors.toFloats("x", Tensors.of(Dtype.DTYPE_BF16, x, 1, 7), 1, 7);
    // 1 + 2^-8 lies halfway and goes to the even 1.0; 1 + 3 x 2^-8 goes up to the even 1 + 2^-6.
    assertThat(rounded).containsExactly(1f, -2.5f, 0f, 0f, 4096f, 1f, 1.015625f);
  }

  @Test
  void refusalsNameTheTensorTheValueAndTheBound() {
    Tensor good = Tensors.of(Dtype.DTYPE_FP32, new float[6], 2, 3);
    refused(good.toBuilder().setDtype(Dtype.DTYPE_UNSPECIFIED).build(), "DTYPE_UNSPECIFIED");
    refused(good.toBuilder().addShape(1).build(), "keys has shape [2, 3, 1]; it must have [2, 3]");
    refused(good.toBuilder().setShape(0, -1).build(), "keys has shape");
    refused(
        good.toBuilder().setData(ByteString.copyFrom(new byte[23])).build(),
        "keys has 23 bytes; shape [2, 3] of DTYPE_FP32 needs 24");
    float[] bad = new float[6];
    bad[5] = Float.NaN;
    refused(Tensors.of(Dtype.DTYPE_FP32, bad, 2, 3), "keys[1][2] is NaN");
    bad[5] = Float.NEGATIVE_INFINITY;
    refused(Tensors.of(Dtype.DTYPE_FP32, bad, 2, 3), "keys[1][2] is -Infinity");
    bad[5] = 5000;
    refused(Tensors.of(Dtype.DTYPE_FP32, bad, 2, 3), "keys[1][2] is 5000.0");
  }

  private static void refused(Tensor tensor, String message) {
    assertThatThrownBy(() -> Tensors.toFloats("keys", tensor, 2, 3))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining(message);
  }

  @Test
  void rowsAreBoundedBeforeAnythingIsRead() {
    Tensor huge =
        Tensor.newBuilder().setDtype(Dtype.DTYPE_FP32).addShape(1 << 30).addShape(4).build();
    assertThatThrownBy(() -> Tensors.rows("keys", huge, 4096, 4))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("1073741824 rows")
        .hasMessageContaining("1..4096");
    assertThatThrownBy(() -> Tensors.rows("keys", huge.toBuilder().setShape(0, 0).build(), 4096, 4))
        .hasMessageContaining("0 rows");
  }
}
