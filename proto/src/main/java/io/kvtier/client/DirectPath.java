package io.kvtier.client;

import io.grpc.StatusRuntimeException;
import io.kvtier.mapped.MappedPages;
import io.kvtier.rpc.Channels;
import io.kvtier.v1.DirectResponse;
import io.kvtier.v1.TouchRequest;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;

/**
 * Whether and how a tier can be reached with less in between than gRPC: over its direct path, and,
 * on its own host, in its files. Asks the tier at first use; after a failure the calls go over gRPC
 * for a while before it is asked again. Safe for any number of threads; once found, nobody waits.
 */
final class DirectPath implements AutoCloseable {
  private static final Logger LOG = Logger.getLogger(DirectPath.class.getName());
  private static final long RETRY_NS_MIN = Duration.ofSeconds(1).toNanos();
  private static final long RETRY_NS_MAX = Duration.ofMinutes(5).toNanos();

  /** What a tier that was asked has; compared by identity. */
  private static final class Found {
    static final Found NOTHING = new Found(null, null);

    final @Nullable DirectPages pages;
    final @Nullable LocalPages local;

    Found(@Nullable DirectPages pages, @Nullable LocalPages local) {
      this.pages = pages;
      this.local = local;
    }

    void close() {
      if (pages != null) {
        pages.close();
      }
      if (local != null) {
        local.close();
      }
    }
  }

  private final String target;
  private final String peer;
  private final Duration deadline;
  private final Supplier<DirectResponse> asking;
  private final Consumer<TouchRequest> touching;
  private final boolean inFiles;
  private final boolean verify;

  /** Null: the tier is to be asked, once {@link #retryNs} after the last failure. */
  private volatile @Nullable Found found;

  private boolean closed;
  private volatile long failedNs;

  /**
   * How long gRPC is used after the next failure: longer each time, for a path that never works.
   */
  private volatile long retryNs = RETRY_NS_MIN;

  /**
   * A path not looked for yet.
   *
   * @param asking asks the tier; may throw StatusRuntimeException
   * @param touching tells the tier of reads in its files; must not throw
   * @param inFiles whether the tier's files may be read
   * @param verify whether what is read in them is verified
   */
  DirectPath(
      String target,
      String peer,
      Duration deadline,
      Supplier<DirectResponse> asking,
      Consumer<TouchRequest> touching,
      boolean inFiles,
      boolean verify) {
    this.target = target;
    this.peer = peer;
    this.deadline = deadline;
    this.asking = asking;
    this.touching = touching;
    this.inFiles = inFiles;
    this.verify = verify;
  }

  /** The tier's pages over the direct path, or null: use gRPC. */
  @Nullable DirectPages pages() {
    return look().pages;
  }

  /** The tier's pages in its files, or null: they are not to be read from here. */
  @Nullable LocalPages local() {
    Found here = look();
    LocalPages local = here.local;
    if (local != null && local.ended()) {
      failed(here, new IOException("the tier's run has ended"));
      return null;
    }
    return local;
  }

  private Found look() {
    Found here = found;
    return here != null || mustWait() ? orNothing(here) : ask();
  }

  private static Found orNothing(@Nullable Found here) {
    return here == null ? Found.NOTHING : here;
  }

  private boolean mustWait() {
    return failedNs != 0 && System.nanoTime() - failedNs <= retryNs;
  }

  private synchronized Found ask() {
    Found here = found;
    if (here != null || closed || mustWait()) {
      return orNothing(here);
    }
    try {
      DirectResponse response = asking.get();
      SocketAddress address = address(response);
      here =
          new Found(
              address == null ? null : new DirectPages(address, peer, deadline), local(response));
    } catch (StatusRuntimeException e) {
      // A tier that does not answer is asked again; one that does not know the question is not.
      if (e.getStatus().getCode() != io.grpc.Status.Code.UNIMPLEMENTED) {
        failed(null, e);
        return Found.NOTHING;
      }
      here = Found.NOTHING;
    }
    found = here;
    return here;
  }

  private @Nullable SocketAddress address(DirectResponse response) {
    if (Channels.isUnixSocket(target)) {
      return response.getSocket().isEmpty()
          ? null
          : UnixDomainSocketAddress.of(response.getSocket());
    }
    return response.getPort() == 0
        ? null
        : new InetSocketAddress(target.substring(0, target.lastIndexOf(':')), response.getPort());
  }

  private @Nullable LocalPages local(DirectResponse response) {
    if (!inFiles || response.getPagesDirectory().isEmpty() || response.getPagesInstance() == 0) {
      return null;
    }
    try {
      return MappedPages.open(Path.of(response.getPagesDirectory()), response.getPagesInstance())
          .map(pages -> new LocalPages(pages, verify, new ReadReports(touching)))
          .orElse(null);
    } catch (InvalidPathException e) {
      return null;
    }
  }

  /** Gives up what was found, if it still is; connections in use end with their calls. */
  private synchronized void failed(@Nullable Found used, Exception e) {
    if (found != used) {
      return;
    }
    LOG.log(Level.FINE, "the direct path of " + peer + " failed; gRPC is used for a while", e);
    long nowNs = System.nanoTime() | 1;
    boolean again = failedNs != 0 && nowNs - failedNs < 2 * RETRY_NS_MAX;
    retryNs = again ? Math.min(2 * retryNs, RETRY_NS_MAX) : RETRY_NS_MIN;
    failedNs = nowNs;
    found = null;
    if (used != null) {
      used.close();
    }
  }

  /** Notes that a call has failed that had used the direct path. */
  void failed(DirectPages used, IOException e) {
    Found here = found;
    if (here != null && here.pages == used) {
      failed(here, e);
    }
  }

  @Override
  public synchronized void close() {
    closed = true;
    Found here = found;
    if (here != null) {
      here.close();
    }
  }
}
