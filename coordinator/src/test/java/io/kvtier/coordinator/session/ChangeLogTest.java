package io.kvtier.coordinator.session;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.v1.Session;
import io.kvtier.v1.SessionChangeKind;
import org.junit.jupiter.api.Test;

final class ChangeLogTest {
  @Test
  void changesAreNumberedWithoutAGapAndTheOldestGo() {
    ChangeLog log = new ChangeLog(3);
    for (int i = 1; i <= 5; i++) {
      log.add(
          SessionChangeKind.SESSION_CHANGE_KIND_OPENED,
          Session.newBuilder().setSessionId("s" + i).build());
    }

    assertThat(log.sequence()).isEqualTo(5);
    assertThat(log.after(1, 9)).isEmpty();
    assertThat(log.after(2, 9).orElseThrow())
        .extracting(change -> change.getSession().getSessionId())
        .containsExactly("s3", "s4", "s5");
    assertThat(log.after(2, 2).orElseThrow()).hasSize(2);
    assertThat(log.after(5, 9).orElseThrow()).isEmpty();
    assertThat(log.after(6, 9)).isEmpty();

    log.restore(7);
    assertThat(log.after(6, 9)).isEmpty();
    assertThat(log.after(7, 9).orElseThrow()).isEmpty();
  }
}
