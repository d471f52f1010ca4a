package io.kvtier.deploy.simulate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import java.time.Duration;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class SimulationTest {
  private static SimulationConfig config(long seed) {
    return new SimulationConfig(
        seed, 24, 6, 150, Duration.ofMinutes(12), 8, .01, 2, 2, 1, 1 << 30, 256 << 20, 20, 1 << 18);
  }

  private static SimulationReport run(SimulationConfig config) {
    return Simulation.run(config, (_, _, _) -> {});
  }

  private static String value(SimulationReport report, String what) {
    return report.rows().stream()
        .filter(row -> row.what().startsWith(what))
        .map(SimulationReport.Row::value)
        .findFirst()
        .orElseThrow();
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3})
  void everyRuleHoldsWhateverIsLost(long seed) {
    SimulationReport report = run(config(seed));
    assertThat(report.breaches()).as("seed %d", seed).isEmpty();
    // Something has happened.
    assertThat(value(report, "sessions opened")).startsWith("150;");
    assertThat(value(report, "tiers lost")).doesNotStartWith("0;");
    assertThat(value(report, "workers lost")).doesNotContain("; 0");
    assertThat(value(report, "sessions resumed")).doesNotStartWith("0;");
    assertThat(value(report, "stale calls")).isNotEqualTo("0");
    assertThat(Arrays.stream(report.sessionsOfWorkers()).sum()).isPositive();
  }

  @Test
  void theSameSeedGivesTheSameReportAndAnotherOneAnother() {
    SimulationReport one = run(PlantedFaultsTest.config(5));
    assertThat(run(PlantedFaultsTest.config(5)).rows()).isEqualTo(one.rows());
    assertThat(run(PlantedFaultsTest.config(6)).rows()).isNotEqualTo(one.rows());
  }

  @Test
  void moreNodesThanACoordinatorHoldsAreRefused() {
    assertThatThrownBy(() ->
            new SimulationConfig(
                1, 1000, 24, 1, Duration.ofMinutes(1), 0, 0, 2, 2, 1, 1 << 30, 1 << 30, 1, 1))
        .isInstanceOf(KvtierException.class)
        .hasMessageContaining("1025");
  }
}
