package io.kvtier.gpuworker.grpc;

import static org.assertj.core.api.Assertions.assertThatCode;

import org.junit.jupiter.api.Test;

class RehearsalTest {
  /** It throws whatever its worker refuses. */
  @Test
  void everyCallOfItIsServed() {
    assertThatCode(Rehearsal::run).doesNotThrowAnyException();
    assertThatCode(Rehearsal::run)
        .as("nothing of the first is in the way")
        .doesNotThrowAnyException();
  }
}
