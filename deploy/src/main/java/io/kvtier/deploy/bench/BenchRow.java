package io.kvtier.deploy.bench;

/**
 * One comparison of a benchmark.
 *
 * @param name what is compared, and with what
 * @param ours median of our rounds
 * @param reference median of the reference's rounds, measured in turns with ours
 * @param ratio ours / reference
 * @param unit of ours and reference
 * @param goal what the ratio should be; empty: none is set
 * @param command reproduces the row
 */
public record BenchRow(
    String name,
    double ours,
    double reference,
    double ratio,
    String unit,
    String goal,
    String command) {}
