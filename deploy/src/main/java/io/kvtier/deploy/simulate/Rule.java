package io.kvtier.deploy.simulate;

/** What must hold at any time of a run. */
enum Rule {
  ONE_WORKER("a session is on the one worker that the coordinator names, in its epoch"),
  EPOCH_RISES("a session's epoch only rises"),
  SESSION_KEPT("no session ends while its engine uses it"),
  EVEN_LOAD("a worker gets no new session while it has far more than the others"),
  EVEN_PAGES("no tier is home to far more pages than the others"),
  SHARE_MOVED("a tier that joins or leaves changes the homes of little more than its share"),
  ACKNOWLEDGED_KEPT("a page acknowledged by two tiers is not lost with one"),
  ENOUGH_COPIES("a page is acknowledged once it has the copies asked for, and has them again soon"),
  LEASED_KEPT("a leased page is not removed"),
  LEASES_END("a lease that nobody renews is gone by its deadline"),
  TRUE_PRESENCE("a tier serves what it was given and has not told to have removed, nothing else"),
  TRUE_PREFIX(
      "the prefix directory names no page that is not stored, but for the time of a message"),
  WITHIN_BOUND("no node holds more bytes than it may"),
  DEAD_NODES_GONE("a node that is not heard is no member after its lease"),
  FENCED("a stale epoch changes nothing"),
  NOTHING_LEFT("at the end there are no sessions, leases, device bytes or pages of sessions");

  final String text;

  Rule(String text) {
    this.text = text;
  }
}
