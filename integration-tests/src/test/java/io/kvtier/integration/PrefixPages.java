package io.kvtier.integration;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.kvtier.page.PageKey;
import io.kvtier.page.PrefixChain;
import io.kvtier.rpc.Channels;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.WatchRequest;
import io.kvtier.v1.WatchResponse;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** What of a prefix a tier holds, by its Watch. */
final class PrefixPages {
  private PrefixPages() {}

  /** Keys of all layers' pages of one place in a chain. */
  static List<PageKey> keysOf(String tierTarget, PrefixChain chain, int page) {
    ManagedChannel channel = Channels.open(tierTarget);
    List<PageKey> keys = new ArrayList<>();
    try {
      Iterator<WatchResponse> snapshot =
          PagesGrpc.newBlockingStub(channel)
              .withDeadlineAfter(10, TimeUnit.SECONDS)
              .watch(WatchRequest.getDefaultInstance());
      boolean more = true;
      while (more) {
        WatchResponse part = snapshot.next();
        for (ByteString bytes : part.getKeysList()) {
          PageKey key = PageKey.of(bytes);
          if (key.w0() == chain.high(page) && key.w1() == chain.low(page)) {
            keys.add(key);
          }
        }
        more = !part.getSnapshotEnds();
      }
      return keys;
    } finally {
      channel.shutdownNow();
    }
  }
}
