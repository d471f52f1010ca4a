/** JMH benchmarks; {@link io.kvtier.benchmark.LayerBenchmark} tells how to run them. */
@org.jspecify.annotations.NullMarked
package io.kvtier.benchmark;
