package io.kvtier.coordinator.state;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import io.kvtier.v1.EndPin;
import io.kvtier.v1.PinRecord;
import io.kvtier.v1.SessionChangeKind;
import io.kvtier.v1.SnapshotPart;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;

/** The same commands make the same state and results, through a snapshot or without one. */
final class ClusterStateTest {
  private static final int COMMANDS = 4_000;

  @Test
  void replayFromOneSeedGivesTheSameStateAndResults() {
    long seed = seed();
    ClusterState first = new ClusterState();
    ClusterState second = new ClusterState();
    RandomCommands one = new RandomCommands(seed);
    RandomCommands other = new RandomCommands(seed);
    Set<Applied.OutcomeCase> outcomes = EnumSet.noneOf(Applied.OutcomeCase.class);
    for (int i = 0; i < COMMANDS; i++) {
      Applied applied = first.apply(one.next());
      assertThat(second.apply(other.next())).isEqualTo(applied);
      outcomes.add(applied.getOutcomeCase());
    }
    assertThat(snapshot(second)).isEqualTo(snapshot(first));
    assertThat(outcomes).hasSize(4);
  }

  @Test
  void aSnapshotAndTheRestOfTheLogEqualTheWholeLog() {
    long seed = seed();
    RandomCommands commands = new RandomCommands(seed);
    ClusterState whole = new ClusterState();
    ClusterState resumed = new ClusterState();
    int at = new Random(seed).nextInt(COMMANDS);
    for (int i = 0; i < COMMANDS; i++) {
      if (i == at) {
        // Over what it had before, as for one that is too far behind.
        resumed.clear();
        snapshot(whole).forEach(resumed::restore);
      }
      Command command = commands.next();
      Applied applied = whole.apply(command);
      if (i >= at) {
        assertThat(resumed.apply(command)).isEqualTo(applied);
      } else if (i % 3 == 0) {
        var _ = resumed.apply(command);
      }
    }
    assertThat(snapshot(resumed)).isEqualTo(snapshot(whole));
  }

  @Test
  void aRefusedCommandChangesNothing() {
    RandomCommands commands = new RandomCommands(seed());
    ClusterState state = new ClusterState();
    int refused = 0;
    for (int i = 0; i < COMMANDS; i++) {
      List<SnapshotPart> before = snapshot(state);
      Applied applied = state.apply(commands.next());
      if (applied.hasRefusal()) {
        refused++;
        // The time goes on, and pins whose time has run out go.
        assertThat(timeless(snapshot(state))).isEqualTo(timeless(before));
      }
    }
    assertThat(refused).isBetween(COMMANDS / 10, COMMANDS * 9 / 10);
  }

  @Test
  void everyChangeOfASessionIsToldOnce() {
    RandomCommands commands = new RandomCommands(seed());
    ClusterState state = new ClusterState();
    Set<SessionChangeKind> kinds = EnumSet.noneOf(SessionChangeKind.class);
    for (int i = 0; i < COMMANDS; i++) {
      long before = state.changes().sequence();
      List<SnapshotPart> sessions = sessions(state);
      Applied applied = state.apply(commands.next());
      long told = state.changes().sequence() - before;
      assertThat(told).isLessThanOrEqualTo(1);
      if (!sessions(state).equals(sessions)) {
        assertThat(told).as("%s", applied).isOne();
      }
      state.changes().after(before, 9).orElseThrow().forEach(c -> kinds.add(c.getKind()));
    }
    assertThat(kinds).hasSize(5);
  }

  private static Command pin(long nowMs, String id, long deadlineMs) {
    PinRecord pin =
        PinRecord.newBuilder().setPinId(id).setTenant("t").setDeadlineMs(deadlineMs).build();
    return Command.newBuilder().setNowMs(nowMs).setPin(pin).build();
  }

  private static Command endPin(long nowMs, String id) {
    EndPin end = EndPin.newBuilder().setPinId(id).setTenant("t").build();
    return Command.newBuilder().setNowMs(nowMs).setEndPin(end).build();
  }

  /** The next leader's clock may be behind: what was over stays so. */
  @Test
  void timeDoesNotRunBackwards() {
    ClusterState state = new ClusterState();
    assertThat(state.apply(pin(2000, "first", 5000)).hasPin()).isTrue();
    assertThat(state.apply(pin(100, "second", 1500)).hasPin()).isTrue();
    assertThat(state.apply(endPin(100, "second")).hasRefusal()).isTrue();
    assertThat(state.apply(endPin(100, "first")).hasPin()).isTrue();
  }

  @Test
  void pinsAreInASnapshot() {
    ClusterState state = new ClusterState();
    assertThat(state.apply(pin(1000, "p", 5000)).hasPin()).isTrue();
    ClusterState restored = new ClusterState();
    snapshot(state).forEach(restored::restore);
    assertThat(restored.pins().list()).isEqualTo(state.pins().list()).hasSize(1);
    assertThat(restored.apply(endPin(2000, "p")).hasPin()).isTrue();
  }

  private static List<SnapshotPart> timeless(List<SnapshotPart> parts) {
    return parts.stream().filter(part -> !part.hasHead() && !part.hasPin()).toList();
  }

  private static List<SnapshotPart> sessions(ClusterState state) {
    return snapshot(state).stream().filter(SnapshotPart::hasSession).toList();
  }

  private static List<SnapshotPart> snapshot(ClusterState state) {
    List<SnapshotPart> parts = new ArrayList<>();
    state.snapshot(parts::add);
    return parts;
  }

  private static long seed() {
    long seed = System.nanoTime();
    System.out.println("ClusterStateTest seed " + seed);
    return seed;
  }
}
