package io.kvtier.deploy.demo;

import io.kvtier.KvtierException;
import io.kvtier.v1.PlanMode;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;

/**
 * What the demo is asked to do.
 *
 * @param model directory of a Llama-architecture model in Hugging Face's form
 * @param lengths nominal context lengths in tokens, 256..1048576, at least one
 * @param cases questions a task and length, 1..1000
 * @param seed of the case generator
 * @param budget device bytes as a share of the full KV cache at 16 bits, above 0, at most 1; empty:
 *     the service's default, a quarter where that suffices
 * @param evalFile cases to ask instead of generated ones
 * @param endpoint a running coordinator, host:port; empty: all services start in this process
 * @param mode which method places and attends
 * @param codeBits bits of a stored key or value element, 4 or 8
 */
public record DemoConfig(
    Path model,
    List<Integer> lengths,
    int cases,
    long seed,
    OptionalDouble budget,
    Optional<Path> evalFile,
    Optional<String> endpoint,
    PlanMode mode,
    int codeBits) {
  public DemoConfig {
    lengths = List.copyOf(lengths);
    if (lengths.isEmpty()) {
      throw KvtierException.invalid("no length is given; write for example --length 2k");
    }
    for (int length : lengths) {
      KvtierException.requireInRange("length", length, 256, 1 << 20);
    }
    KvtierException.requireInRange("cases", cases, 1, 1000);
    double share = budget.orElse(1);
    if (!(share > 0 && share <= 1)) {
      throw KvtierException.invalid(
          "budget is %s; it must be above 0 and at most 1, for example 1/4", share);
    }
    if (codeBits != 4 && codeBits != 8) {
      throw KvtierException.invalid("code-bits is %d; it must be 4 or 8", codeBits);
    }
  }
}
