package io.kvtier.cachetier.grpc;

import io.grpc.stub.ServerCallStreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.Read;
import io.kvtier.cachetier.Read.Hit;
import io.kvtier.cachetier.Read.MissReason;
import io.kvtier.cachetier.RowSelection;
import io.kvtier.wire.OutgoingBytes;
import io.kvtier.wire.RowsMessage;
import io.kvtier.wire.Staging;
import java.util.List;
import org.agrona.MutableDirectBuffer;

/**
 * The answers of one GetRows call. Rows are copied once, out of their page into the message as it
 * will be sent; each page is left alone again then.
 */
final class RowAnswers implements PacedStream.Answers<OutgoingBytes> {
  /** About how many bytes of rows share a message. */
  private static final int ANSWER_BYTES = 1 << 20;

  private static final int HEADS_BYTES_MAX = 64 << 10;

  /** Sent before the next message of any call is written on the same thread. */
  private static final ThreadLocal<Staging> STAGING =
      ThreadLocal.withInitial(
          () -> Staging.onHeap(ANSWER_BYTES + PageStore.PAGE_BYTES_MAX + HEADS_BYTES_MAX));

  private final PageService pages;
  private final List<PageRequests.Rows> asked;
  private int next;

  RowAnswers(PageService pages, List<PageRequests.Rows> asked) {
    this.pages = pages;
    this.asked = asked;
  }

  @Override
  public boolean hasNext() {
    return next < asked.size();
  }

  @Override
  public void sendNext(ServerCallStreamObserver<OutgoingBytes> out) {
    Staging staging = STAGING.get();
    int length = write(staging::ensure, 0, ANSWER_BYTES);
    out.onNext(OutgoingBytes.written(staging.buffer(), 0, length));
  }

  /**
   * Writes the next answer.
   *
   * @param from where its first byte goes
   * @param bytes about how long it may be
   * @return its length
   */
  int write(RowsMessage.Room room, int from, int bytes) {
    int at = from;
    for (; hasNext() && at - from < bytes; next++) {
      at = write(asked.get(next), room, at);
    }
    return at - from;
  }

  private int write(PageRequests.Rows page, RowsMessage.Room room, int at) {
    RowSelection selection = page.selection();
    try {
      Read<Integer> read =
          pages.rows(
              page.key(),
              selection,
              (bytes, offset, layout, rows) -> {
                int length = selection.rows() * rows.length();
                MutableDirectBuffer target = room.ensure(at + RowsMessage.bytesMax(length), at);
                int dataAt = RowsMessage.begin(target, at, next, length);
                selection.take(bytes, offset, layout, rows, target, dataAt);
                return RowsMessage.end(target, dataAt, length);
              });
      return switch (read) {
        case Hit<Integer>(Integer end) -> end;
        case Read.Miss<Integer>(MissReason reason) ->
            RowsMessage.miss(
                room.ensure(at + RowsMessage.bytesMax(0), at),
                at,
                next,
                PagesGrpcService.miss(reason));
      };
    } catch (KvtierException e) {
      throw PageRequests.at("pages", next, e);
    }
  }
}
