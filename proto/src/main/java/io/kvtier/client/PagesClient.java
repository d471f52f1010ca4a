package io.kvtier.client;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Statuses;
import io.kvtier.v1.DeleteRequest;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.GetResponse;
import io.kvtier.v1.GetSectionsRequest;
import io.kvtier.v1.GetSectionsResponse;
import io.kvtier.v1.Miss;
import io.kvtier.v1.PageSections;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.PutRequest;
import io.kvtier.v1.PutResponse;
import io.kvtier.v1.SectionsOf;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.ObjIntConsumer;

/**
 * A tier node's pages, from any thread. Every call blocks until its answer or its deadline. Batches
 * of any length are cut to what the node takes at once.
 */
public final class PagesClient implements PageTransport {
  /** Most keys in one request. */
  public static final int BATCH_MAX = 1024;

  /** Pages on their way before an acknowledgement is waited for. */
  private static final int IN_FLIGHT_MAX = 32;

  private final ManagedChannel channel;
  private final String peer;
  private final Duration deadline;

  /** Opens a client; nothing is sent until the first call. */
  public PagesClient(String target, Duration deadline) {
    this.channel = Channels.open(target);
    this.peer = "the tier at " + target;
    this.deadline = deadline;
  }

  @Override
  public void put(List<KeyedPage> pages) {
    try (Duplex<PutRequest, PutResponse> stream = new Duplex<>(blocking().put(), peer, deadline)) {
      int acknowledged = 0;
      for (int i = 0; i < pages.size(); i++) {
        if (i - acknowledged >= IN_FLIGHT_MAX) {
          requireAcknowledges(pages.get(acknowledged++), stream.read());
        }
        KeyedPage page = pages.get(i);
        stream.write(
            PutRequest.newBuilder().setKey(page.key().toByteString()).setPage(page.page()).build());
      }
      stream.finish();
      while (acknowledged < pages.size()) {
        requireAcknowledges(pages.get(acknowledged++), stream.read());
      }
    }
  }

  private void requireAcknowledges(KeyedPage page, PutResponse response) {
    if (!response.getKey().equals(page.key().toByteString())) {
      throw new KvtierException(
          Code.INTERNAL, peer + " acknowledged another page than " + page.key());
    }
  }

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    for (int from = 0; from < keys.size(); from += BATCH_MAX) {
      List<PageKey> batch = keys.subList(from, Math.min(keys.size(), from + BATCH_MAX));
      GetRequest.Builder request = GetRequest.newBuilder();
      batch.forEach(key -> request.addKeys(key.toByteString()));
      try (Duplex<?, GetResponse> stream =
          new Duplex<>(blocking().get(request.build()), peer, deadline)) {
        for (int i = 0; i < batch.size(); i++) {
          GetResponse response = stream.read();
          requireServed(response.getIndex(), i, response.getMiss(), batch.get(i));
          consumer.accept(response.getPage(), from + i);
        }
      }
    }
  }

  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    for (int from = 0; from < wanted.size(); from += BATCH_MAX) {
      List<SectionsOf> batch = wanted.subList(from, Math.min(wanted.size(), from + BATCH_MAX));
      GetSectionsRequest request = GetSectionsRequest.newBuilder().addAllPages(batch).build();
      try (Duplex<?, GetSectionsResponse> stream =
          new Duplex<>(blocking().getSections(request), peer, deadline)) {
        int served = 0;
        while (served < batch.size()) {
          for (PageSections page : stream.read().getPagesList()) {
            SectionsOf asked = batch.get(Math.min(served, batch.size() - 1));
            requireServed(page.getIndex(), served, page.getMiss(), PageKey.of(asked.getKey()));
            consumer.accept(page.getData(), from + served);
            served++;
          }
        }
      }
    }
  }

  private void requireServed(int index, int expected, Miss miss, PageKey key) {
    if (index != expected) {
      throw new KvtierException(
          Code.INTERNAL,
          "%s answered page %d of a batch where %d was due".formatted(peer, index, expected));
    }
    if (miss != Miss.MISS_NONE) {
      throw new KvtierException(
          Code.LOST, "%s does not have page %s any more (%s)".formatted(peer, key, miss));
    }
  }

  @Override
  public void delete(List<PageKey> keys) {
    for (int from = 0; from < keys.size(); from += BATCH_MAX) {
      DeleteRequest.Builder request = DeleteRequest.newBuilder();
      keys.subList(from, Math.min(keys.size(), from + BATCH_MAX))
          .forEach(key -> request.addKeys(key.toByteString()));
      try {
        PagesGrpc.newBlockingStub(channel)
            .withDeadlineAfter(deadline.toNanos(), TimeUnit.NANOSECONDS)
            .delete(request.build());
      } catch (io.grpc.StatusRuntimeException e) {
        throw Statuses.fromStatus(e, peer);
      }
    }
  }

  private PagesGrpc.PagesBlockingV2Stub blocking() {
    return PagesGrpc.newBlockingV2Stub(channel)
        .withDeadlineAfter(deadline.toNanos(), TimeUnit.NANOSECONDS);
  }

  @Override
  public void close() {
    Channels.close(channel);
  }
}
