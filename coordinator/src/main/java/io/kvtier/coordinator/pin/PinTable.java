package io.kvtier.coordinator.pin;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.v1.PinRecord;
import java.util.List;
import java.util.Optional;
import java.util.TreeMap;

/**
 * The pins, as all coordinators agree on them. Not thread-safe: the owner serializes all calls. A
 * refused call changes nothing.
 */
public final class PinTable {
  /** Pins a coordinator holds. */
  public static final int PINS_MAX = 1024;

  private final int pinsMax;
  private final TreeMap<String, PinRecord> pins = new TreeMap<>();

  public PinTable(int pinsMax) {
    this.pinsMax = pinsMax;
  }

  /**
   * Takes a pin in. What the same request of the same tenant has pinned already is not pinned
   * again.
   *
   * @return the pin of this request
   * @throws KvtierException EXHAUSTED
   */
  public PinRecord pin(PinRecord pin, long nowMs) {
    expire(nowMs);
    Optional<PinRecord> before =
        pins.values().stream()
            .filter(other ->
                !pin.getRequestId().isEmpty()
                    && other.getRequestId().equals(pin.getRequestId())
                    && other.getTenant().equals(pin.getTenant()))
            .findFirst();
    if (before.isPresent()) {
      return before.get();
    }
    if (pins.size() >= pinsMax) {
      throw new KvtierException(
          Code.EXHAUSTED,
          "%d prefixes are pinned and at most %d may be; unpin one"
              .formatted(pins.size(), pinsMax));
    }
    pins.put(pin.getPinId(), pin);
    return pin;
  }

  /**
   * Ends a tenant's pin.
   *
   * @return the pin as it was
   * @throws KvtierException NOT_FOUND
   */
  public PinRecord unpin(String pinId, String tenant, long nowMs) {
    expire(nowMs);
    PinRecord pin = pins.get(pinId);
    if (pin == null || !pin.getTenant().equals(tenant)) {
      throw new KvtierException(
          Code.NOT_FOUND, "no pin %s; it was ended, or its time has run out".formatted(pinId));
    }
    pins.remove(pinId);
    return pin;
  }

  private void expire(long nowMs) {
    pins.values().removeIf(pin -> pin.getDeadlineMs() <= nowMs);
  }

  /** Copies the pins whose time has not run out, by id. */
  public List<PinRecord> at(long nowMs) {
    return pins.values().stream().filter(pin -> pin.getDeadlineMs() > nowMs).toList();
  }

  /** Copies all pins, by id. */
  public List<PinRecord> list() {
    return List.copyOf(pins.values());
  }

  /** Forgets everything. */
  public void clear() {
    pins.clear();
  }

  /** Takes a pin of a snapshot in. */
  public void restore(PinRecord pin) {
    pins.put(pin.getPinId(), pin);
  }
}
