package io.kvtier.cachetier;

import java.util.concurrent.atomic.LongAdder;

/** What a {@link PageService} has done since it was made. Safe for use by many threads. */
public final class PageCounts {
  private final LongAdder hits = new LongAdder();
  private final LongAdder missesAbsent = new LongAdder();
  private final LongAdder missesCorrupt = new LongAdder();
  private final LongAdder putsStored = new LongAdder();
  private final LongAdder putsExisted = new LongAdder();
  private final LongAdder bytesIn = new LongAdder();
  private final LongAdder bytesOut = new LongAdder();
  private final LongAdder fileHits = new LongAdder();
  private final LongAdder fileBytes = new LongAdder();

  void hit(int bytes) {
    hits.increment();
    bytesOut.add(bytes);
  }

  void readInFiles(long reads, long bytes) {
    fileHits.add(reads);
    fileBytes.add(bytes);
  }

  void miss(Read.MissReason reason) {
    switch (reason) {
      case ABSENT -> missesAbsent.increment();
      case CORRUPT -> missesCorrupt.increment();
    }
  }

  void put(PutResult result, int bytes) {
    switch (result) {
      case STORED -> {
        putsStored.increment();
        bytesIn.add(bytes);
      }
      case EXISTED -> putsExisted.increment();
    }
  }

  /** Reads that were served. */
  public long hits() {
    return hits.sum();
  }

  /** Reads in the tier's files that other processes have told of. */
  public long fileHits() {
    return fileHits.sum();
  }

  /** Bytes of these reads. */
  public long fileBytes() {
    return fileBytes.sum();
  }

  /** Reads of pages that are not stored. */
  public long missesAbsent() {
    return missesAbsent.sum();
  }

  /** Reads of pages that failed their verification. */
  public long missesCorrupt() {
    return missesCorrupt.sum();
  }

  /** Pages stored. */
  public long putsStored() {
    return putsStored.sum();
  }

  /** Puts of pages that were there already. */
  public long putsExisted() {
    return putsExisted.sum();
  }

  /** Bytes of the pages stored. */
  public long bytesIn() {
    return bytesIn.sum();
  }

  /** Bytes of the pages and sections served. */
  public long bytesOut() {
    return bytesOut.sum();
  }
}
