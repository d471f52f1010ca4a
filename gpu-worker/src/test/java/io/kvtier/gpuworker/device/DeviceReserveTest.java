package io.kvtier.gpuworker.device;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import org.junit.jupiter.api.Test;

class DeviceReserveTest {
  @Test
  void nobodyElseTakesWhatIsReservedAndSlotsGoBackToIt() {
    try (DeviceMemory memory = new DeviceMemory(1024)) {
      DeviceReserve reserve = memory.reserve(256);
      assertThat(memory.bytesUsed()).isZero();
      assertThat(memory.bytesFree()).isEqualTo(768);
      DeviceSlot others = memory.allocate(768);
      assertThatThrownBy(() -> memory.allocate(64))
          .isInstanceOf(KvtierException.class)
          .hasMessageStartingWith(
              "device memory is full: 1024 of 1024 bytes are used, 64 more are needed;");
      for (int i = 0; i < 3; i++) {
        DeviceSlot first = reserve.allocate(100);
        DeviceSlot second = reserve.allocate(128);
        assertThat(memory.bytesUsed()).isEqualTo(1024);
        assertThatThrownBy(() -> reserve.allocate(64)).isInstanceOf(KvtierException.class);
        first.release();
        second.release();
      }
      others.release();
      assertThat(memory.bytesFree()).isEqualTo(768);
      reserve.close();
      reserve.close();
      assertThat(memory.bytesFree()).isEqualTo(1024);
    }
  }

  @Test
  void aReserveThatIsTooSmallTakesFromWhatAllShare() {
    try (DeviceMemory memory = new DeviceMemory(1024)) {
      DeviceReserve reserve = memory.reserve(64);
      DeviceSlot larger = reserve.allocate(128);
      assertThat(memory.bytesFree()).isEqualTo(1024 - 64 - 128);
      DeviceSlot own = reserve.allocate(64);
      reserve.close();
      larger.release();
      own.release();
      assertThat(memory.bytesFree()).isEqualTo(1024);
      assertThat(memory.bytesUsed()).isZero();
    }
  }

  @Test
  void whatDoesNotFitIsNotReserved() {
    try (DeviceMemory memory = new DeviceMemory(1024)) {
      assertThat(memory.tryReserve(1025)).isNull();
      assertThatThrownBy(() -> memory.reserve(1025)).isInstanceOf(KvtierException.class);
      assertThat(memory.bytesFree()).isEqualTo(1024);
    }
  }
}
