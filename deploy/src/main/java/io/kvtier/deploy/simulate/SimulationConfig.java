package io.kvtier.deploy.simulate;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.coordinator.membership.NodeTable;
import java.time.Duration;

/**
 * A run.
 *
 * @param seed of everything that is drawn
 * @param workers gpu-workers, 1 or more
 * @param tiers cache tiers at the beginning, 3 or more; one more joins later. With the workers at
 *     most as many nodes as a coordinator holds
 * @param sessions that are opened in all, 1..1000000
 * @param arrivals time over which conversations begin, 1 s..1 day
 * @param lossesPerHour share of the workers that are lost, cut off or drained an hour, 0..10; with
 *     any, tiers are lost and drained too, one after the other
 * @param lostAnswers share of the calls to workers whose answer is lost, 0...5
 * @param replicas copies of each page, 2..8
 * @param writeAcks copies that make a page durable, 1..replicas
 * @param layers of the model, each with 8 KV heads of 128 dimensions, 1..64
 * @param tierBytes bound of each tier, 8 MiB..1 TiB
 * @param deviceBytes bound of each worker, 16 MiB..1 TiB
 * @param prefixes shared beginnings of prompts, chosen by Zipf's law, 1..100000
 * @param prefixKeys bound of the coordinator's prefix directory, 1..2^24
 */
public record SimulationConfig(
    long seed,
    int workers,
    int tiers,
    int sessions,
    Duration arrivals,
    double lossesPerHour,
    double lostAnswers,
    int replicas,
    int writeAcks,
    int layers,
    long tierBytes,
    long deviceBytes,
    int prefixes,
    int prefixKeys) {
  private static final long BYTES_MAX = 1L << 40;

  public SimulationConfig {
    requireInRange("workers", workers, 1, NodeTable.NODES_MAX);
    requireInRange("tiers", tiers, 3, NodeTable.NODES_MAX);
    requireInRange(
        "workers, tiers and one tier that joins", workers + tiers + 1, 1, NodeTable.NODES_MAX);
    requireInRange("sessions", sessions, 1, 1_000_000);
    requireInRange("arrivals, seconds", arrivals.toSeconds(), 1, 86_400);
    requireInRange("replicas", replicas, 2, 8);
    requireInRange("write acks", writeAcks, 1, replicas);
    requireInRange("layers", layers, 1, 64);
    requireInRange("tier bytes", tierBytes, 8 << 20, BYTES_MAX);
    requireInRange("device bytes", deviceBytes, 16 << 20, BYTES_MAX);
    requireInRange("prefixes", prefixes, 1, 100_000);
    requireInRange("prefix keys", prefixKeys, 1, 1 << 24);
    requireShare("losses per hour", lossesPerHour, 10);
    requireShare("lost answers", lostAnswers, .5);
  }

  private static void requireShare(String name, double value, double max) {
    if (!(value >= 0 && value <= max)) {
      throw KvtierException.invalid("%s is %s; it must be 0..%s", name, value, max);
    }
  }
}
