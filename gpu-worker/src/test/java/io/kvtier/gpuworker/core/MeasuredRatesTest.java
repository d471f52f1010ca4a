package io.kvtier.gpuworker.core;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.rpc.PlanLimits;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;

/** What a worker tells of its rates, from fetches and queries of known cost. */
final class MeasuredRatesTest {
  private static final long ROUND_TRIP_NS = 500_000;

  private final MeasuredRates rates = new MeasuredRates();
  private final SplittableRandom random = new SplittableRandom(7);

  /** Fetches of 4 kB to 1 MB, each held up by up to as long again. */
  private void fetch(int count, double bytesPerUs) {
    for (int i = 0; i < count; i++) {
      long bytes = 4_000L << random.nextInt(9);
      double ns = (ROUND_TRIP_NS + 1e3 * bytes / bytesPerUs) * (1 + random.nextDouble() * .2);
      rates.fetched(bytes, (long) ns);
    }
  }

  @Test
  void aRateIsThatOfTheBytesAndNotOfTheRoundTrip() {
    fetch(1000, 1100);
    assertThat(rates.fetchRate()).isEqualTo(1024);
    assertThat(rates.attendRate()).as("of what was not measured").isZero();
    fetch(2000, 130);
    assertThat(rates.fetchRate()).isEqualTo(128);
    // What the round trips vary by is as much as these bytes take.
    fetch(2000, 8000);
    assertThat(rates.fetchRate()).isBetween(4096, 8192);
  }

  @Test
  void fewObservationsTellNothing() {
    fetch(MeasuredRates.OBSERVATIONS_MIN - 1, 1100);
    assertThat(rates.fetchRate()).isZero();
    fetch(1, 1100);
    assertThat(rates.fetchRate()).isPositive();
  }

  /** One in a hundred takes a hundred times as long, as on a busy machine. */
  @Test
  void whatIsHeldUpNowAndThenIsNotTakenToBeSlow() {
    for (int round = 0; round < 20; round++) {
      fetch(99, 1100);
      rates.fetched(64_000, 100 * ROUND_TRIP_NS);
    }
    assertThat(rates.fetchRate()).isBetween(512, 1024);
  }

  /** All fetches of a size, or nearly: what is noise does not become a rate. */
  @Test
  void fetchesOfOneSizeAreTakenToBeMadeAsUsual() {
    for (int i = 0; i < 2000; i++) {
      rates.fetched(9_000 + random.nextInt(2_000), (long) (206_000 * (.5 + random.nextDouble())));
    }
    assertThat(rates.fetchRate()).isBetween(512, 4096);
  }

  /** A rate between two powers does not go to and fro between them. */
  @Test
  void aRateStandsUntilItIsClearlyAnother() {
    fetch(2000, 1400);
    int told = rates.fetchRate();
    for (int round = 0; round < 50; round++) {
      fetch(50, round % 2 == 0 ? 1250 : 1650);
      assertThat(rates.fetchRate()).isEqualTo(told);
    }
  }

  @Test
  void ratesStayWithinTheirBounds() {
    for (int i = 0; i < 1000; i++) {
      rates.fetched(1L << 40, 1);
      rates.attended(1 + i % 2, 1L << 50);
      rates.attended(0, 5);
    }
    assertThat(rates.fetchRate()).isEqualTo(PlanLimits.RATE_MAX);
    assertThat(rates.attendRate()).isEqualTo(1);
  }
}
