package io.kvtier.rpc;

import io.grpc.ManagedChannel;
import io.grpc.netty.NettyChannelBuilder;
import io.kvtier.KvtierException;
import java.util.concurrent.TimeUnit;

/** Opens and closes channels with kvtier's limits. */
public final class Channels {
  private static final int FLOW_CONTROL_WINDOW = 4 << 20;

  private Channels() {}

  /**
   * Opens a channel in plain text; nothing is sent until the first call.
   *
   * @throws KvtierException INVALID if the target is not host:port
   */
  public static ManagedChannel open(String target) {
    int colon = target.lastIndexOf(':');
    if (colon <= 0 || !target.substring(colon + 1).matches("[0-9]{1,5}")) {
      throw KvtierException.invalid("target is '%s'; it must be host:port", target);
    }
    return NettyChannelBuilder.forTarget("dns:///" + target)
        .usePlaintext()
        .directExecutor()
        .flowControlWindow(FLOW_CONTROL_WINDOW)
        .maxInboundMessageSize(Endpoint.MESSAGE_BYTES_MAX)
        .build();
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
