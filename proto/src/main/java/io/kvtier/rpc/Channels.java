package io.kvtier.rpc;

import io.grpc.ManagedChannel;
import io.grpc.netty.NettyChannelBuilder;
import io.kvtier.KvtierException;
import io.netty.channel.ChannelOption;
import io.netty.channel.ConnectTimeoutException;
import io.netty.channel.epoll.EpollDomainSocketChannel;
import io.netty.channel.unix.DomainSocketAddress;
import java.net.ConnectException;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/** Opens and closes channels with kvtier's limits. */
public final class Channels {
  private static final int FLOW_CONTROL_WINDOW = 4 << 20;

  private Channels() {}

  /**
   * Opens a channel in plain text; nothing is sent until the first call.
   *
   * @param target host:port, or unix:PATH for a Unix-domain socket
   * @throws KvtierException INVALID if the target is neither; PRECONDITION if it is a socket and
   *     this system has none
   */
  public static ManagedChannel open(String target) {
    return builder(target)
        .usePlaintext()
        .directExecutor()
        .flowControlWindow(FLOW_CONTROL_WINDOW)
        .maxInboundMessageSize(Endpoint.MESSAGE_BYTES_MAX)
        .build();
  }

  /** Whether a target is a Unix-domain socket. */
  public static boolean isUnixSocket(String target) {
    return target.startsWith(UnixSockets.PREFIX);
  }

  /** Whether a text is a target: host:port. */
  public static boolean isTarget(String text) {
    int colon = text.lastIndexOf(':');
    return colon > 0 && text.substring(colon + 1).matches("[0-9]{1,5}");
  }

  /**
   * Whether a call failed because nobody listens at its target: the process there is gone, or not
   * there yet. One that only does not answer may live.
   *
   * @param thrown what the call ended with
   */
  public static boolean isConnectionRefused(Throwable thrown) {
    for (Throwable cause = thrown; cause != null; cause = cause.getCause()) {
      if (cause instanceof ConnectException && !(cause instanceof ConnectTimeoutException)) {
        return true;
      }
    }
    return false;
  }

  private static NettyChannelBuilder builder(String target) {
    if (isUnixSocket(target)) {
      Path path = Path.of(target.substring(UnixSockets.PREFIX.length()));
      UnixSockets.require(path);
      return NettyChannelBuilder.forAddress(new DomainSocketAddress(path.toString()))
          .channelType(EpollDomainSocketChannel.class, DomainSocketAddress.class)
          .eventLoopGroup(UnixSockets.threads())
          // gRPC sets it on every channel; null takes it back, where Netty would warn.
          .withOption(ChannelOption.SO_KEEPALIVE, null)
          .overrideAuthority("localhost");
    }
    if (!isTarget(target)) {
      throw KvtierException.invalid("target is '%s'; it must be host:port or unix:PATH", target);
    }
    return NettyChannelBuilder.forTarget("dns:///" + target);
  }

  /** Ends a channel and waits briefly for its calls. */
  public static void close(ManagedChannel channel) {
    channel.shutdown();
    try {
      if (!channel.awaitTermination(1, TimeUnit.SECONDS)) {
        channel.shutdownNow();
      }
    } catch (InterruptedException e) {
      channel.shutdownNow();
      Thread.currentThread().interrupt();
    }
  }
}
