package io.kvtier.deploy.bench;

import static io.kvtier.KvtierException.requireInRange;

import java.util.Optional;

/**
 * What a user may ask of a benchmark; each takes what concerns it.
 *
 * @param tokens of the longest context, 1,024..1,048,576
 * @param peer a peer to measure beside, which may have to be fetched; empty: none
 * @param quality what the measuring of quality is to do
 * @param device to measure on, as {@code --device} takes it
 */
public record BenchSettings(
    int tokens, Optional<String> peer, QualitySettings quality, String device) {
  public BenchSettings {
    requireInRange("tokens", tokens, 1024, 1 << 20);
  }
}
