package io.kvtier.cachetier.grpc;

import io.grpc.stub.ServerCallStreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.Read;
import io.kvtier.cachetier.Read.Hit;
import io.kvtier.cachetier.Read.MissReason;
import io.kvtier.cachetier.SectionSelection;
import io.kvtier.page.PageLayout;
import io.kvtier.wire.OutgoingBytes;
import io.kvtier.wire.Staging;
import java.util.List;

/**
 * The answers of one GetSections call. The pieces of several pages share a message, so they are
 * gathered first: each page is left alone again once its pieces are copied.
 */
final class SectionAnswers implements PacedStream.Answers<OutgoingBytes> {
  /** About how many bytes of sections share a message. */
  private static final int ANSWER_BYTES = 1 << 20;

  /** Sent before the next message of any call is gathered on the same thread. */
  private static final ThreadLocal<Staging> STAGING =
      ThreadLocal.withInitial(() -> Staging.onHeap(ANSWER_BYTES + PageStore.PAGE_BYTES_MAX));

  private final PageService pages;
  private final List<PageRequests.Sections> asked;
  private int next;

  SectionAnswers(PageService pages, List<PageRequests.Sections> asked) {
    this.pages = pages;
    this.asked = asked;
  }

  /** Where a page's pieces lie in the staging. */
  private record Gathered(int length, int[] lengths, int[] checksums) {}

  @Override
  public boolean hasNext() {
    return next < asked.size();
  }

  @Override
  public void sendNext(ServerCallStreamObserver<OutgoingBytes> out) {
    out.onNext(next());
  }

  /** The next answer, to be sent before another is made on this thread. */
  OutgoingBytes next() {
    Staging staging = STAGING.get();
    OutgoingBytes message = OutgoingBytes.sections();
    int used = 0;
    for (; hasNext() && used < ANSWER_BYTES; next++) {
      int at = used;
      switch (gather(asked.get(next), staging, at)) {
        case Hit<Gathered>(Gathered(int length, int[] lengths, int[] checksums)) -> {
          message.addSections(next, lengths, checksums, staging.buffer(), at, length);
          used += length;
        }
        case Read.Miss<Gathered>(MissReason reason) ->
            message.addMiss(next, PagesGrpcService.miss(reason));
      }
    }
    return message;
  }

  private Read<Gathered> gather(PageRequests.Sections page, Staging staging, int at) {
    SectionSelection selection = page.selection();
    try {
      return pages.getSections(
          page.key(),
          selection,
          (bytes, offset, length) -> {
            PageLayout layout = PageLayout.of(bytes, offset);
            int needed = selection.length(layout);
            selection.gather(bytes, offset, layout, staging.ensure(at + needed, at), at);
            return new Gathered(
                needed, selection.lengths(layout), selection.checksums(bytes, offset, layout));
          });
    } catch (KvtierException e) {
      throw PageRequests.at("pages", next, e);
    }
  }
}
