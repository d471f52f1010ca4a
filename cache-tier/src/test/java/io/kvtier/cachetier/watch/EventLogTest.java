package io.kvtier.cachetier.watch;

import static io.kvtier.cachetier.TestPages.key;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

final class EventLogTest {
  private final EventLog log = new EventLog(4, 7);

  @Test
  void eventsAreNumberedFromOneWithoutAGap() {
    assertThat(log.last()).isZero();
    assertThat(log.after(0, 10)).isEmpty();
    log.append(key(1), true);
    log.append(key(2), true);
    log.append(key(1), false);
    assertThat(log.after(0, 2))
        .containsExactly(new PageEvent(1, key(1), true), new PageEvent(2, key(2), true));
    assertThat(log.after(2, 2)).containsExactly(new PageEvent(3, key(1), false));
    assertThat(log.after(3, 2)).isEmpty();
    assertThat(log.last()).isEqualTo(3);
    assertThat(log.instance()).isEqualTo(7);
  }

  @Test
  void whoFallsBehindIsToldSoAndNotGivenAGap() {
    for (int i = 1; i <= 4; i++) {
      log.append(key(i), true);
    }
    assertThat(log.after(0, 10)).hasSize(4);
    log.append(key(5), true);
    assertThat(log.reachesBack(0)).isFalse();
    assertThat(log.reachesBack(-5)).isFalse();
    assertThat(log.reachesBack(Long.MIN_VALUE)).isFalse();
    assertThat(log.reachesBack(1)).isTrue();
    assertThatThrownBy(() -> log.after(0, 1))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
        .hasMessage("watcher is 5 events behind; the tier keeps 4: watch again from a snapshot");
    assertThat(log.after(1, 10)).extracting(PageEvent::sequence).containsExactly(2L, 3L, 4L, 5L);
    assertThat(log.reachesBack(6)).as("the future").isFalse();
  }

  @Test
  void listenersHearOfEveryEvent() {
    AtomicInteger heard = new AtomicInteger();
    Runnable listener = heard::incrementAndGet;
    log.addListener(listener);
    log.append(key(1), true);
    log.append(key(2), true);
    log.removeListener(listener);
    log.append(key(3), true);
    assertThat(heard).hasValue(2);
  }
}
