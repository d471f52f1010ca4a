package io.kvtier.cachetier.grpc;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.protobuf.InvalidProtocolBufferException;
import io.grpc.Status;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.TenantName;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PutResult;
import io.kvtier.cachetier.Read.Miss;
import io.kvtier.cachetier.Read.MissReason;
import io.kvtier.page.PageKey;
import io.kvtier.rpc.Statuses;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.GetRowsRequest;
import io.kvtier.v1.GetSectionsRequest;
import io.kvtier.v1.PutResponse;
import io.kvtier.wire.BufferBudget;
import io.kvtier.wire.FrameChannel;
import io.kvtier.wire.Frames;
import io.kvtier.wire.OutgoingBytes;
import io.kvtier.wire.PageMessages;
import io.kvtier.wire.Staging;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.SocketChannel;
import java.util.List;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * A connection of the direct path, on a thread of its own. A client that does not read stops this
 * thread alone: no lock is held while bytes are sent, and what waits to be sent is at most {@link
 * #SEND_BYTES} and one answer.
 */
final class DirectConnection implements Runnable {
  /** Longest request: a page with its key. */
  static final int REQUEST_BYTES_MAX = PageStore.PAGE_BYTES_MAX + (64 << 10);

  private static final Logger LOG = Logger.getLogger(DirectConnection.class.getName());

  /** Few enough that the client reads the first pages while the next are copied. */
  private static final int SEND_BYTES = 64 << 10;

  private final PageService pages;
  private final FrameChannel channel;

  /** Frames lie in one piece, so nothing is put together here but what is too long. */
  private final Staging unused = Staging.offHeap(PageStore.PAGE_BYTES_MAX);

  private int acksHeld;
  private String tenant = TenantName.DEFAULT;

  /** Whether the client has greeted. */
  private volatile boolean greeted;

  /** When the client last sent a request, or took what was sent. */
  private volatile long movedNs = System.nanoTime();

  /**
   * A connection that has been taken.
   *
   * @throws KvtierException EXHAUSTED if the budget has no memory for it
   */
  DirectConnection(PageService pages, SocketChannel socket, BufferBudget buffers) {
    this.pages = pages;
    this.channel = new FrameChannel(socket, REQUEST_BYTES_MAX, buffers);
  }

  @Override
  public void run() {
    try (channel) {
      try {
        channel.awaitGreeting();
        channel.greet();
        greeted = true;
        while (channel.nextFrame()) {
          movedNs = System.nanoTime();
          answer();
          channel.shrinkIfScarce();
          movedNs = System.nanoTime();
        }
      } catch (RuntimeException e) {
        refuse(e);
      }
    } catch (IOException e) {
      LOG.log(Level.FINE, "a client of the direct path has gone", e);
    } finally {
      channel.giveBuffersBack();
    }
  }

  /**
   * Whether the client has been gone for too long.
   *
   * @param greetingNs longest time to its greeting
   * @param idleNs longest time in which it neither sends a request nor takes an answer
   */
  boolean stale(long nowNs, long greetingNs, long idleNs) {
    return nowNs - movedNs > (greeted ? idleNs : greetingNs);
  }

  private void refuse(RuntimeException e) throws IOException {
    Status status = Statuses.toStatus(e).getStatus();
    if (status.getCode() == Status.Code.INTERNAL) {
      LOG.log(Level.SEVERE, "fault while serving the direct path", e);
    }
    String description = status.getDescription() == null ? "" : status.getDescription();
    channel.add(Frames.ERROR, OutgoingBytes.refusal(status.getCode().value(), description));
    channel.flush();
    channel.finish();
  }

  private void answer() throws IOException {
    try {
      switch (channel.kind()) {
        case Frames.GET -> get(GetRequest.parseFrom(channel.bodyBuffer()));
        case Frames.SECTIONS -> sections(GetSectionsRequest.parseFrom(channel.bodyBuffer()));
        case Frames.CONTAINS -> contains(channel.bodyBuffer().order(ByteOrder.BIG_ENDIAN));
        case Frames.PUT -> put();
        case Frames.TENANT -> tenant();
        case Frames.ROWS -> rows(GetRowsRequest.parseFrom(channel.bodyBuffer()));
        default ->
            throw KvtierException.invalid(
                "frame is of kind %d; it must be a request, %d..%d",
                channel.kind(), Frames.GET, Frames.TENANT);
      }
    } catch (InvalidProtocolBufferException e) {
      throw new KvtierException(
          Code.INVALID,
          "the request of kind %d cannot be read: %s".formatted(channel.kind(), e),
          e);
    }
  }

  private void get(GetRequest request) throws IOException {
    List<PageKey> keys = PageRequests.keys(request.getKeysList());
    for (int i = 0; i < keys.size(); i++) {
      int index = i;
      var read =
          pages.get(
              keys.get(i),
              (page, offset, length) -> {
                channel.add(Frames.ANSWER, OutgoingBytes.page(index, page, offset, length));
                return true;
              });
      if (read instanceof Miss<Boolean>(MissReason reason)) {
        channel.add(Frames.ANSWER, OutgoingBytes.miss(index, PagesGrpcService.miss(reason)));
      }
      sendIfMany();
    }
    channel.add(Frames.END);
    channel.flush();
  }

  private void sections(GetSectionsRequest request) throws IOException {
    SectionAnswers answers = new SectionAnswers(pages, PageRequests.sections(request));
    while (answers.hasNext()) {
      channel.add(Frames.ANSWER, answers.next());
      sendIfMany();
    }
    channel.add(Frames.END);
    channel.flush();
  }

  private void rows(GetRowsRequest request) throws IOException {
    RowAnswers answers = new RowAnswers(pages, PageRequests.rows(request));
    while (answers.hasNext()) {
      int from = channel.waiting() + Frames.HEADER_BYTES;
      channel.addWritten(Frames.ANSWER, answers.write(channel::ensure, from, SEND_BYTES));
      sendIfMany();
    }
    channel.add(Frames.END);
    channel.flush();
  }

  private void sendIfMany() throws IOException {
    if (channel.waiting() >= SEND_BYTES) {
      channel.flush();
      movedNs = System.nanoTime();
    }
  }

  private void contains(ByteBuffer keys) throws IOException {
    int length = keys.remaining();
    int count = length / PageKey.LENGTH;
    if (length % PageKey.LENGTH != 0) {
      throw KvtierException.invalid(
          "keys have %d bytes; they must have %d each", length, PageKey.LENGTH);
    }
    PageRequests.requireCount(count);
    byte[] stored = new byte[(count + 7) / 8];
    for (int i = 0; i < count; i++) {
      if (pages.contains(PageKey.of(keys, i * PageKey.LENGTH))) {
        stored[i / 8] |= (byte) (1 << i % 8);
      }
    }
    channel.add(Frames.ANSWER, OutgoingBytes.whole(stored));
    channel.flush();
  }

  private void tenant() {
    tenant = TenantName.require(UTF_8.decode(channel.bodyBuffer()).toString());
  }

  private void put() throws IOException {
    PageMessages.Put put = PageMessages.readPut(channel.body(), unused);
    PageKey key = PageKey.of(put.key());
    KvtierException.requireInRange("page length", put.length(), 1, PageStore.PAGE_BYTES_MAX);
    PutResult result = pages.put(tenant, key, put.bytes(), put.offset(), put.length());
    PutResponse ack =
        PutResponse.newBuilder().setKey(put.key()).setExisted(result == PutResult.EXISTED).build();
    channel.add(Frames.ANSWER, OutgoingBytes.whole(ack.toByteArray()));
    if (++acksHeld == Frames.ACKS_HELD_MAX || !channel.hasMore()) {
      acksHeld = 0;
      channel.flush();
    }
  }
}
