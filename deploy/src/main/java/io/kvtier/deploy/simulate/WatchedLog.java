package io.kvtier.deploy.simulate;

import io.kvtier.coordinator.log.ReplicatedLog;
import io.kvtier.v1.Applied;
import io.kvtier.v1.Command;
import io.kvtier.v1.Session;
import java.util.HashMap;
import java.util.Map;

/** A log that is looked at after each command. */
final class WatchedLog extends ForwardingLog {
  private final Audit audit;

  /** The epoch that each session ever was in last. */
  private final Map<String, Long> epochs = new HashMap<>();

  private long commands;

  WatchedLog(ReplicatedLog log, Audit audit) {
    super(log);
    this.audit = audit;
  }

  /** Commands so far. */
  long commands() {
    return commands;
  }

  @Override
  public Applied submit(Command command) {
    commands++;
    Applied applied = log.submit(command);
    boolean begins = command.hasOpen() || command.hasMove();
    if (applied.hasSession()) {
      Session session = applied.getSession().getSession();
      Long before = epochs.put(session.getSessionId(), session.getEpoch());
      audit.require(
          Rule.EPOCH_RISES,
          before == null || (begins ? session.getEpoch() > before : session.getEpoch() == before),
          () ->
              "session %s is in epoch %d after epoch %d by %s"
                  .formatted(
                      session.getSessionId(), session.getEpoch(), before, command.getKindCase()));
    }
    return applied;
  }
}
