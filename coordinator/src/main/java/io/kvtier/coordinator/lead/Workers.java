package io.kvtier.coordinator.lead;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import io.kvtier.KvtierException;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttachResponse;
import io.kvtier.v1.Session;

/** Tells workers which sessions they have. Thread-safe; blocks unless it says otherwise. */
public interface Workers {
  /**
   * Hands a session to its worker and waits for the answer.
   *
   * @throws KvtierException UNAVAILABLE if the worker does not answer in time, else as it refused
   */
  AttachResponse attach(AttachRequest request);

  /** Whether a worker answers at once. */
  boolean answers(String target);

  /**
   * Tells a worker to free a session and waits. One that does not answer may hold it until it is
   * idle, as the session is gone here whatever it says.
   *
   * @param keepPages whether its pages stay in the tier, for another worker
   * @return whether the worker has freed it
   */
  @CanIgnoreReturnValue
  boolean detach(Session session, boolean keepPages);

  /**
   * Tells a worker to free a session and does not wait; it may never have had it.
   *
   * @param keepPages whether its pages stay in the tier, for another worker
   */
  void detachLater(Session session, boolean keepPages);
}
