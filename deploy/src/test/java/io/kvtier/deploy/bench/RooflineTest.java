package io.kvtier.deploy.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import org.junit.jupiter.api.Test;

/** The arithmetic, written out by hand from FORMAT.md for a head dim of 128. */
class RooflineTest {
  private static final double TOKEN_HEADS = 32.0 * 8 * 131072;

  @Test
  void bytesAreThoseOfTheFormat() {
    // Two planes of 1024 bytes, 128 of scales, 256 of mean: 2432 / 64 = 38; the scores 4 a q head.
    assertThat(row("scan").bytes()).isCloseTo(TOKEN_HEADS * (38 + 16), within(1.0));
    // Beside them a value mean of 256: 42; two planes, 4096 of values, 128 of scales: 98.
    assertThat(row("resident, all heads sparse").bytes()).isCloseTo(TOKEN_HEADS * 42, within(1.0));
    assertThat(row("dense").bytes()).isCloseTo(TOKEN_HEADS * (42 + 98), within(1.0));
    assertThat(row("full KV").bytes()).isCloseTo(TOKEN_HEADS * 512, within(1.0));
    assertThat(row("rows of").bytes()).isCloseTo(32 * 8 * 1024 * 98.0, within(1.0));
    assertThat(row("the same over the bus").ms())
        .isCloseTo(32 * 8 * 1024 * 98.0 / 31.5e9 * 1e3, within(1e-9));
    assertThat(row("dense").ms()).isCloseTo(TOKEN_HEADS * 140 / 936e9 * 1e3, within(1e-9));
  }

  @Test
  void whatDoesNotFitIsSaidNotTo() {
    assertThat(Roofline.rows(1 << 20))
        .filteredOn(row -> row.note().equals("does not fit"))
        .extracting(Roofline.Row::what)
        .containsExactly("resident, all heads dense", "resident, full KV at 16 bits");
  }

  private static Roofline.Row row(String start) {
    return Roofline.rows(131072).stream()
        .filter(row -> row.what().startsWith(start))
        .findFirst()
        .orElseThrow();
  }
}
