package io.kvtier.deploy.simulate;

import io.kvtier.page.PageKey;
import io.kvtier.v1.Session;
import java.util.ArrayList;
import java.util.List;

/** A session as a worker has it, with the keys of the pages that are stored of it. */
final class Attached {
  final Session info;

  /** Pages that it shares with others, sink rows included. */
  final List<PageKey> shared = new ArrayList<>();

  final List<PageKey> own = new ArrayList<>();
  long epoch;
  long deviceBytes;

  /** Since when it is here. */
  final long sinceNs;

  /** When it was used last. */
  long usedNs;

  /** Pages of each layer that are stored. */
  int pages;

  Attached(Session info, long deviceBytes, long nowNs) {
    this.info = info;
    this.epoch = info.getEpoch();
    this.deviceBytes = deviceBytes;
    this.sinceNs = nowNs;
    this.usedNs = nowNs;
  }

  /** What remains of one that has left: its own pages. */
  Attached(Attached left) {
    this(left.info, 0, left.usedNs);
    own.addAll(left.own);
  }

  List<PageKey> keys() {
    List<PageKey> keys = new ArrayList<>(shared);
    keys.addAll(own);
    return keys;
  }
}
