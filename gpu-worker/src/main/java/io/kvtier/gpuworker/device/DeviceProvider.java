package io.kvtier.gpuworker.device;

import java.util.List;
import java.util.function.Consumer;

/**
 * Opens devices of one kind; found as a service, so that a kind can be left out of a build. Safe
 * for any number of threads.
 */
public interface DeviceProvider {
  /** The kind's name, as {@code --device} takes it. */
  String kind();

  /**
   * The devices that it sees, one line each for people, beginning with what {@code --device} takes.
   *
   * @throws io.kvtier.KvtierException UNAVAILABLE if it cannot look; says what to do
   */
  List<String> devices();

  /**
   * Opens a device.
   *
   * @param address which one: what follows {@code kind:}, in the kind's own form; empty for the
   *     first
   * @param bytesMax bytes for sessions
   * @param progress hears what an opening that takes seconds is at
   * @throws io.kvtier.KvtierException INVALID for an address that is none, NOT_FOUND for one of no
   *     device, EXHAUSTED if the device has not so many bytes, UNAVAILABLE if the kind cannot be
   *     used here; says what to do
   */
  AttentionDevice open(String address, long bytesMax, Consumer<String> progress);
}
