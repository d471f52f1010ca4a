package io.kvtier.client;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(30)
final class ByteGateTest {
  private static final long LONG_NS = TimeUnit.SECONDS.toNanos(20);

  @Test
  void whoGoesBeyondTheBoundWaitsForRoom() throws InterruptedException {
    ByteGate gate = new ByteGate(100);
    gate.enter(60, LONG_NS);
    gate.enter(40, LONG_NS);
    AtomicBoolean passed = new AtomicBoolean();
    Thread third =
        Thread.ofVirtual()
            .start(() -> {
              gate.enter(50, LONG_NS);
              passed.set(true);
            });
    gate.leave(40);
    assertThatThrownBy(() -> gate.enter(41, 1))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
        .hasMessageContaining("60 bytes of pages are being read, at most 100 may, and 41 more");
    assertThat(passed).isFalse();
    gate.leave(60);
    third.join();
    assertThat(passed).isTrue();
  }

  @Test
  void whoAsksForMoreThanThereIsPassesAlone() {
    ByteGate gate = new ByteGate(100);
    gate.enter(1000, 1);
    assertThatThrownBy(() -> gate.enter(1, 1)).isInstanceOf(KvtierException.class);
    gate.leave(1000);
    gate.enter(100, 1);
  }
}
