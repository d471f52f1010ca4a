package io.kvtier.client;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AttendRequest;
import io.kvtier.v1.AttendResponse;
import io.kvtier.v1.Dtype;
import io.kvtier.wire.PartialChecksum;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Answers of a tier that attended: taken as they were sent, or refused. */
class NearMessagesTest {
  private static final int HEAD_DIM = 16;

  private final AttendRequest request =
      NearMessages.request(
          List.of(new PageKey(1, 2, 3, 4)),
          new NearPages.Queries(List.of(0), 2, HEAD_DIM, new float[2 * HEAD_DIM]),
          new long[] {5});

  private static AttendResponse.Builder response() {
    float[] output = new float[2 * HEAD_DIM];
    output[3] = 1.5f;
    AttendResponse.Builder response =
        AttendResponse.newBuilder()
            .setOutput(Tensors.of(Dtype.DTYPE_FP32, output, 1, 2, HEAD_DIM))
            .addLse(.25f)
            .addLse(-7)
            .setTokens(2);
    return response.setChecksum(
        PartialChecksum.of(response.getOutput().getData(), response.getLseList()));
  }

  private void refused(Code code, AttendResponse.Builder response) {
    assertThatThrownBy(() -> NearMessages.attended(request, response.build(), "the tier"))
        .isInstanceOfSatisfying(KvtierException.class, e -> assertThat(e.code()).isEqualTo(code));
  }

  @Test
  void whatWasSentIsTaken() {
    NearPages.Attended attended = NearMessages.attended(request, response().build(), "the tier");
    assertThat(attended.output()).hasSize(2 * HEAD_DIM).contains(1.5f);
    assertThat(attended.lse()).containsExactly(.25f, -7);
    assertThat(attended.tokens()).isEqualTo(2);
    assertThat(attended.bytesMoved())
        .isEqualTo(request.getSerializedSize() + response().build().getSerializedSize());
  }

  @Test
  void aFlippedBitAnywhereIsRefused() {
    byte[] data = response().getOutput().getData().toByteArray();
    data[13] ^= 4;
    AttendResponse.Builder flipped = response();
    flipped.getOutputBuilder().setData(ByteString.copyFrom(data));
    refused(Code.LOST, flipped);
    refused(Code.LOST, response().setLse(1, -7.5f));
    refused(Code.LOST, response().setChecksum(0));
    refused(Code.INTERNAL, response().addLse(1));
  }
}
