package io.kvtier.cachetier.grpc;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.kvtier.KvtierException;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.Read;
import io.kvtier.cachetier.Read.Hit;
import io.kvtier.cachetier.Read.MissReason;
import io.kvtier.page.PageKey;
import io.kvtier.v1.AttendRequest;
import io.kvtier.v1.AttendResponse;
import io.kvtier.v1.ContainsRequest;
import io.kvtier.v1.ContainsResponse;
import io.kvtier.v1.DeleteRequest;
import io.kvtier.v1.DeleteResponse;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.GetResponse;
import io.kvtier.v1.GetSectionsRequest;
import io.kvtier.v1.GetSectionsResponse;
import io.kvtier.v1.Miss;
import io.kvtier.v1.PageSections;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.PutRequest;
import io.kvtier.v1.PutResponse;
import io.kvtier.v1.ScoreRequest;
import io.kvtier.v1.ScoreResponse;
import java.util.Iterator;
import java.util.List;
import java.util.stream.IntStream;
import org.agrona.DirectBuffer;

/**
 * The Pages service. Refusals are thrown; the endpoint makes statuses of them. Must run on platform
 * threads, since the store's locks belong to threads.
 */
public final class PagesGrpcService extends PagesGrpc.PagesImplBase {
  /** About how many bytes of sections share a message. */
  private static final int ANSWER_BYTES = 1 << 20;

  private final PageService pages;
  private final NearHandler near;

  public PagesGrpcService(PageService pages, NearHandler near) {
    this.pages = pages;
    this.near = near;
  }

  @Override
  public void score(ScoreRequest request, StreamObserver<ScoreResponse> out) {
    near.score(request, out);
  }

  @Override
  public void attend(AttendRequest request, StreamObserver<AttendResponse> out) {
    near.attend(request, out);
  }

  @Override
  public StreamObserver<PutRequest> put(StreamObserver<PutResponse> acks) {
    return PutStream.open(pages, (ServerCallStreamObserver<PutResponse>) acks);
  }

  @Override
  public void get(GetRequest request, StreamObserver<GetResponse> out) {
    List<PageKey> keys = PageRequests.keys(request.getKeysList());
    PacedStream.send(
        (ServerCallStreamObserver<GetResponse>) out,
        IntStream.range(0, keys.size()).mapToObj(i -> page(i, keys.get(i))).iterator());
  }

  private GetResponse page(int index, PageKey key) {
    GetResponse.Builder response = GetResponse.newBuilder().setIndex(index);
    return switch (pages.get(key, PagesGrpcService::copy)) {
      case Hit<ByteString>(ByteString page) -> response.setPage(page).build();
      case Read.Miss<ByteString>(MissReason reason) -> response.setMiss(miss(reason)).build();
    };
  }

  private static ByteString copy(DirectBuffer page, int offset, int length) {
    byte[] copy = new byte[length];
    page.getBytes(offset, copy);
    return UnsafeByteOperations.unsafeWrap(copy);
  }

  @Override
  public void getSections(GetSectionsRequest request, StreamObserver<GetSectionsResponse> out) {
    List<PageRequests.Sections> asked = PageRequests.sections(request);
    PacedStream.send(
        (ServerCallStreamObserver<GetSectionsResponse>) out,
        new Iterator<>() {
          private int next;

          @Override
          public boolean hasNext() {
            return next < asked.size();
          }

          @Override
          public GetSectionsResponse next() {
            GetSectionsResponse.Builder response = GetSectionsResponse.newBuilder();
            for (int bytes = 0; hasNext() && bytes < ANSWER_BYTES; next++) {
              PageSections sections = sections(next, asked.get(next));
              response.addPages(sections);
              bytes += sections.getData().size();
            }
            return response.build();
          }
        });
  }

  private PageSections sections(int index, PageRequests.Sections asked) {
    Read<byte[]> read;
    try {
      read = pages.getSections(asked.key(), asked.selection());
    } catch (KvtierException e) {
      throw PageRequests.at("pages", index, e);
    }
    PageSections.Builder response = PageSections.newBuilder().setIndex(index);
    return switch (read) {
      case Hit<byte[]>(byte[] data) ->
          response.setData(UnsafeByteOperations.unsafeWrap(data)).build();
      case Read.Miss<byte[]>(MissReason reason) -> response.setMiss(miss(reason)).build();
    };
  }

  private static Miss miss(MissReason reason) {
    return switch (reason) {
      case ABSENT -> Miss.MISS_ABSENT;
      case CORRUPT -> Miss.MISS_CORRUPT;
    };
  }

  @Override
  public void contains(ContainsRequest request, StreamObserver<ContainsResponse> out) {
    ContainsResponse.Builder response = ContainsResponse.newBuilder();
    for (PageKey key : PageRequests.keys(request.getKeysList())) {
      response.addStored(pages.contains(key));
    }
    out.onNext(response.build());
    out.onCompleted();
  }

  @Override
  public void delete(DeleteRequest request, StreamObserver<DeleteResponse> out) {
    int deleted = 0;
    for (PageKey key : PageRequests.keys(request.getKeysList())) {
      deleted += pages.delete(key) ? 1 : 0;
    }
    out.onNext(DeleteResponse.newBuilder().setDeleted(deleted).build());
    out.onCompleted();
  }
}
