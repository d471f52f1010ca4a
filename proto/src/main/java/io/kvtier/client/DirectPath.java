package io.kvtier.client;

import io.grpc.StatusRuntimeException;
import io.kvtier.rpc.Channels;
import io.kvtier.v1.DirectResponse;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.time.Duration;
import java.util.function.Supplier;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;

/**
 * Whether and where a tier can be reached directly. Asks the tier at first use; after a failure the
 * calls go over gRPC for a while before it is asked again. Safe for any number of threads.
 */
final class DirectPath implements AutoCloseable {
  private static final Logger LOG = Logger.getLogger(DirectPath.class.getName());
  private static final long RETRY_NS_MIN = Duration.ofSeconds(1).toNanos();
  private static final long RETRY_NS_MAX = Duration.ofMinutes(5).toNanos();

  private final String target;
  private final String peer;
  private final Duration deadline;
  private final Supplier<DirectResponse> asking;
  private @Nullable DirectPages pages;
  private boolean asked;
  private boolean closed;
  private long failedNs;

  /**
   * How long gRPC is used after the next failure: longer each time, for a path that never works.
   */
  private long retryNs = RETRY_NS_MIN;

  /**
   * A path not looked for yet.
   *
   * @param asking asks the tier; may throw StatusRuntimeException
   */
  DirectPath(String target, String peer, Duration deadline, Supplier<DirectResponse> asking) {
    this.target = target;
    this.peer = peer;
    this.deadline = deadline;
    this.asking = asking;
  }

  /** The tier's pages over the direct path, or null: use gRPC. */
  synchronized @Nullable DirectPages pages() {
    if (!asked && !closed && (failedNs == 0 || System.nanoTime() - failedNs > retryNs)) {
      asked = true;
      SocketAddress address = address();
      pages = address == null ? null : new DirectPages(address, peer, deadline);
    }
    return pages;
  }

  private @Nullable SocketAddress address() {
    DirectResponse response;
    try {
      response = asking.get();
    } catch (StatusRuntimeException e) {
      // A tier that does not answer is asked again; one that does not know the question is not.
      if (e.getStatus().getCode() != io.grpc.Status.Code.UNIMPLEMENTED) {
        failed(e);
      }
      return null;
    }
    if (Channels.isUnixSocket(target)) {
      return response.getSocket().isEmpty()
          ? null
          : UnixDomainSocketAddress.of(response.getSocket());
    }
    return response.getPort() == 0
        ? null
        : new InetSocketAddress(target.substring(0, target.lastIndexOf(':')), response.getPort());
  }

  /** Gives a path up that has failed; connections in use end with their calls. */
  synchronized void failed(Exception e) {
    LOG.log(Level.FINE, "the direct path of " + peer + " failed; gRPC is used for a while", e);
    long nowNs = System.nanoTime() | 1;
    boolean again = failedNs != 0 && nowNs - failedNs < 2 * RETRY_NS_MAX;
    retryNs = again ? Math.min(2 * retryNs, RETRY_NS_MAX) : RETRY_NS_MIN;
    failedNs = nowNs;
    asked = false;
    if (pages != null) {
      pages.close();
      pages = null;
    }
  }

  /** As {@link #failed(Exception)} for the failure of a call that had {@code used} it. */
  synchronized void failed(DirectPages used, IOException e) {
    if (pages == used) {
      failed(e);
    }
  }

  @Override
  public synchronized void close() {
    closed = true;
    if (pages != null) {
      pages.close();
    }
  }
}
