package io.kvtier.coordinator.grpc;

import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.coordinator.profile.ModelKey;
import io.kvtier.coordinator.profile.ProfileTable;
import io.kvtier.coordinator.profile.ProfileTable.Entry;
import io.kvtier.coordinator.profile.ProfileTable.Known;
import java.util.List;

/**
 * The models' profiles behind a lock of their own: taking in the curves of many heads must not hold
 * up the other tables.
 */
public final class GuardedProfiles {
  private final ProfileTable table;

  /** Takes the table over; nobody else may touch it from now on. */
  public GuardedProfiles(ProfileTable table) {
    this.table = table;
  }

  synchronized void merge(ModelKey key, int tokens, List<ResidualCurve> curves) {
    table.merge(key, tokens, curves);
  }

  synchronized Known at(ModelKey key, int tokens) {
    return table.at(key, tokens);
  }

  synchronized List<Entry> list() {
    return table.list();
  }
}
