package io.kvtier.coordinator.profile;

import static io.kvtier.KvtierException.requireInRange;

/**
 * Bounds of what is kept of models.
 *
 * @param modelsMax models that have a profile, 1..65536; the one not asked for longest goes first
 * @param bytesMax bytes of all profiles, 4 KiB or more; likewise
 */
public record ProfileLimits(int modelsMax, long bytesMax) {
  public ProfileLimits {
    requireInRange("profiles max", modelsMax, 1, 1 << 16);
    requireInRange("profile bytes max", bytesMax, 4096, Long.MAX_VALUE);
  }

  /** 256 models, 16 MiB; one of 32 layers and 8 KV heads takes 22 KiB. */
  public static ProfileLimits defaults() {
    return new ProfileLimits(256, 16L << 20);
  }
}
