package io.kvtier.coordinator.profile;

import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.v1.ProfileRecord;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The models' profiles, bounded in number and bytes; the one that was refined longest ago goes
 * first. Looking changes nothing, since each coordinator is asked other things and all must keep
 * the same.
 */
public final class ProfileTable {
  /** Shorter contexts are mostly exact window, whose mass no curve counts. */
  public static final int TOKENS_MIN = 512;

  /** Curves of fewer queries are too rough to be taken in, or to be planned by. */
  public static final int QUERIES_MIN = 16;

  private final ProfileLimits limits;

  /** By time of the last session taken in, oldest first. */
  private final Map<ModelKey, ModelProfile> profiles = new LinkedHashMap<>();

  private long bytes;

  public ProfileTable(ProfileLimits limits) {
    this.limits = limits;
  }

  /**
   * What a profile says of a context.
   *
   * @param sessions that it has seen
   * @param curves one a (layer, KV head) pair
   */
  public record Known(int sessions, List<ResidualCurve> curves) {}

  /** What there is of one model. */
  public record Entry(ModelKey key, int sessions, long bytes) {}

  /**
   * Takes a session's curves into its model's profile; a profile that would not fit alone is not
   * kept.
   *
   * @param tokens context length that they were measured at, {@link #TOKENS_MIN} or more
   * @param curves one a (layer, KV head) pair, of {@link #QUERIES_MIN} queries or more
   */
  public void merge(ModelKey key, int tokens, List<ResidualCurve> curves) {
    long own = ModelProfile.bytes(curves.size());
    if (own > limits.bytesMax()) {
      return;
    }
    ModelProfile profile = profiles.remove(key);
    if (profile == null) {
      profile = new ModelProfile(curves.size());
      bytes += own;
    }
    profiles.put(key, profile);
    makeRoom();
    profile.merge(tokens, curves);
  }

  private void makeRoom() {
    while (profiles.size() > limits.modelsMax() || bytes > limits.bytesMax()) {
      ModelKey oldest = profiles.keySet().iterator().next();
      profiles.remove(oldest);
      bytes -= bytesOf(oldest);
    }
  }

  private static long bytesOf(ModelKey key) {
    return ModelProfile.bytes(key.geometry().getLayers() * key.geometry().getKvHeads());
  }

  /** What is known of a model at a context length; no curves: nothing. */
  public Known at(ModelKey key, int tokens) {
    ModelProfile profile = profiles.get(key);
    return profile == null
        ? new Known(0, List.of())
        : new Known(profile.sessions(), profile.curvesAt(tokens));
  }

  /** All profiles, the one refined longest ago first. */
  public List<Entry> list() {
    List<Entry> entries = new ArrayList<>();
    profiles.forEach(
        (key, profile) -> entries.add(new Entry(key, profile.sessions(), bytesOf(key))));
    return entries;
  }

  /** All profiles for a snapshot, in its order. */
  public List<ProfileRecord> records() {
    List<ProfileRecord> records = new ArrayList<>();
    profiles.forEach((key, profile) ->
        records.add(profile.record().setGeometry(key.geometry()).setMode(key.mode()).build()));
    return records;
  }

  /** Takes a profile of a snapshot in, in the snapshot's order. */
  public void restore(ProfileRecord record) {
    ModelKey key = ModelKey.of(record.getGeometry(), record.getMode());
    profiles.put(key, ModelProfile.of(record));
    bytes += bytesOf(key);
  }

  /** Forgets everything. */
  public void clear() {
    profiles.clear();
    bytes = 0;
  }

  /** Bytes of all profiles. */
  public long bytes() {
    return bytes;
  }
}
