package io.kvtier.coordinator.metrics;

/** Every meter of the coordinator: its name and what it tells. */
public enum CoordinatorMeter {
  SESSIONS("kvtier.coordinator.sessions", "Sessions that are open"),
  NODES("kvtier.coordinator.nodes", "Nodes whose lease holds, by role"),
  NODE_BYTES("kvtier.coordinator.node.bytes", "Bytes in use as the nodes last told, by role"),
  OPENS("kvtier.coordinator.opens", "Sessions opened, by kind: open or fork"),
  CLOSES("kvtier.coordinator.closes", "Sessions closed, by reason: asked, or idle"),
  RESUMES("kvtier.coordinator.resumes", "Sessions resumed, by worker: the same, or another"),
  LEADS("kvtier.coordinator.leads", "1 if this coordinator leads, 0 if another does or none"),
  PINS("kvtier.coordinator.pins", "Prefixes that are pinned"),
  DETACH_FAILURES(
      "kvtier.coordinator.detach.failures",
      "Sessions removed here that their worker could not be told of; it may still hold them"),
  PLANS("kvtier.coordinator.plans", "Plans answered, by source: made, or given by hand"),
  PREFIX_KEYS("kvtier.coordinator.prefix.keys", "Pages of prefixes known, each once a tier node"),
  REFUSALS("kvtier.coordinator.refusals", "Calls refused, by code");

  private final String id;
  private final String description;

  CoordinatorMeter(String id, String description) {
    this.id = id;
    this.description = description;
  }

  public String id() {
    return id;
  }

  public String description() {
    return description;
  }
}
