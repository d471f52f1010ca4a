package io.kvtier.cachetier.grpc;

import io.grpc.BindableService;
import io.grpc.ServerMethodDefinition;
import io.grpc.ServerServiceDefinition;
import io.grpc.ServiceDescriptor;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.Read.Miss;
import io.kvtier.cachetier.Read.MissReason;
import io.kvtier.cachetier.cache.PageCache;
import io.kvtier.page.PageKey;
import io.kvtier.v1.AttendRequest;
import io.kvtier.v1.AttendResponse;
import io.kvtier.v1.CheckRequest;
import io.kvtier.v1.CheckResponse;
import io.kvtier.v1.ContainsRequest;
import io.kvtier.v1.ContainsResponse;
import io.kvtier.v1.DeleteRequest;
import io.kvtier.v1.DeleteResponse;
import io.kvtier.v1.DirectRequest;
import io.kvtier.v1.DirectResponse;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.GetRowsRequest;
import io.kvtier.v1.GetSectionsRequest;
import io.kvtier.v1.LeaseRequest;
import io.kvtier.v1.LeaseResponse;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.PutResponse;
import io.kvtier.v1.ReleaseRequest;
import io.kvtier.v1.ReleaseResponse;
import io.kvtier.v1.ScoreRequest;
import io.kvtier.v1.ScoreResponse;
import io.kvtier.v1.TouchRequest;
import io.kvtier.v1.TouchResponse;
import io.kvtier.v1.WatchRequest;
import io.kvtier.v1.WatchResponse;
import io.kvtier.wire.IncomingBytes;
import io.kvtier.wire.OutgoingBytes;
import io.kvtier.wire.PagesMethods;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The Pages service. Refusals are thrown; the endpoint makes statuses of them. Must run on platform
 * threads, since the store's locks belong to threads. The methods that carry page bytes are bound
 * with marshallers of their own, the others as they were generated.
 */
public final class PagesGrpcService implements BindableService {
  /** Methods that wait for nothing but the store's locks, each held for one page's copy. */
  public static final Set<String> BRIEF =
      Set.of(
          PagesGrpc.getGetMethod().getFullMethodName(),
          PagesGrpc.getGetSectionsMethod().getFullMethodName(),
          PagesGrpc.getGetRowsMethod().getFullMethodName(),
          PagesGrpc.getContainsMethod().getFullMethodName());

  private final PageService pages;
  private final @Nullable LeaseCalls leases;
  private final @Nullable Watchers watchers;
  private final @Nullable NearHandler near;
  private final DirectResponse direct;
  private final StreamLimit limit = new StreamLimit();

  /** Pages alone: other calls are answered as unknown. */
  PagesGrpcService(PageService pages) {
    this(pages, DirectResponse.getDefaultInstance());
  }

  PagesGrpcService(PageService pages, DirectResponse direct) {
    this(pages, direct, null, null, null);
  }

  PagesGrpcService(PageService pages, NearHandler near) {
    this(pages, DirectResponse.getDefaultInstance(), null, null, near);
  }

  PagesGrpcService(PageService pages, PageCache cache, Watchers watchers) {
    this(pages, DirectResponse.getDefaultInstance(), new LeaseCalls(cache), watchers, null);
  }

  /**
   * With all calls; watchers and pool are the caller's to close.
   *
   * @param direct what a Direct call is answered; of the files only callers on this host are told
   */
  public PagesGrpcService(
      PageService pages,
      PageCache cache,
      Watchers watchers,
      NearHandler near,
      DirectResponse direct) {
    this(pages, direct, new LeaseCalls(cache), watchers, near);
  }

  private PagesGrpcService(
      PageService pages,
      DirectResponse direct,
      @Nullable LeaseCalls leases,
      @Nullable Watchers watchers,
      @Nullable NearHandler near) {
    this.pages = pages;
    this.leases = leases;
    this.watchers = watchers;
    this.near = near;
    this.direct = direct;
  }

  /** Streams of pages that are open. */
  public int streams() {
    return limit.open();
  }

  @Override
  public ServerServiceDefinition bindService() {
    Map<String, ServerMethodDefinition<?, ?>> methods = new LinkedHashMap<>();
    for (ServerMethodDefinition<?, ?> method : new Small().bindService().getMethods()) {
      methods.put(method.getMethodDescriptor().getFullMethodName(), method);
    }
    for (ServerMethodDefinition<?, ?> method : bulk()) {
      methods.put(method.getMethodDescriptor().getFullMethodName(), method);
    }
    ServiceDescriptor generated = PagesGrpc.getServiceDescriptor();
    ServiceDescriptor.Builder descriptor =
        ServiceDescriptor.newBuilder(generated.getName())
            .setSchemaDescriptor(generated.getSchemaDescriptor());
    methods.values().forEach(method -> descriptor.addMethod(method.getMethodDescriptor()));
    ServerServiceDefinition.Builder service = ServerServiceDefinition.builder(descriptor.build());
    methods.values().forEach(service::addMethod);
    return service.build();
  }

  private List<ServerMethodDefinition<?, ?>> bulk() {
    return List.of(
        ServerMethodDefinition.create(
            PagesMethods.SERVED_GET, ServerCalls.asyncServerStreamingCall(this::get)),
        ServerMethodDefinition.create(
            PagesMethods.SERVED_GET_SECTIONS,
            ServerCalls.asyncServerStreamingCall(this::getSections)),
        ServerMethodDefinition.create(
            PagesMethods.SERVED_GET_ROWS, ServerCalls.asyncServerStreamingCall(this::getRows)),
        ServerMethodDefinition.create(
            PagesMethods.SERVED_PUT, ServerCalls.asyncBidiStreamingCall(this::put)));
  }

  private StreamObserver<IncomingBytes> put(StreamObserver<PutResponse> acks) {
    return PutStream.open(pages, (ServerCallStreamObserver<PutResponse>) acks);
  }

  private void get(GetRequest request, StreamObserver<OutgoingBytes> out) {
    List<PageKey> keys = PageRequests.keys(request.getKeysList());
    PacedStream.send(
        (ServerCallStreamObserver<OutgoingBytes>) out,
        new PacedStream.Answers<>() {
          private int next;

          @Override
          public boolean hasNext() {
            return next < keys.size();
          }

          @Override
          public void sendNext(ServerCallStreamObserver<OutgoingBytes> to) {
            sendPage(next, keys.get(next), to);
            next++;
          }
        },
        limit);
  }

  /**
   * The page is copied into the transport's buffer, once, under its lock: {@code onNext} does not
   * wait for the client.
   */
  private void sendPage(int index, PageKey key, StreamObserver<OutgoingBytes> out) {
    var read =
        pages.get(
            key,
            (page, offset, length) -> {
              out.onNext(OutgoingBytes.page(index, page, offset, length));
              return true;
            });
    if (read instanceof Miss<Boolean>(MissReason reason)) {
      out.onNext(OutgoingBytes.miss(index, miss(reason)));
    }
  }

  private void getSections(GetSectionsRequest request, StreamObserver<OutgoingBytes> out) {
    PacedStream.send(
        (ServerCallStreamObserver<OutgoingBytes>) out,
        new SectionAnswers(pages, PageRequests.sections(request)),
        limit);
  }

  private void getRows(GetRowsRequest request, StreamObserver<OutgoingBytes> out) {
    PacedStream.send(
        (ServerCallStreamObserver<OutgoingBytes>) out,
        new RowAnswers(pages, PageRequests.rows(request)),
        limit);
  }

  static io.kvtier.v1.Miss miss(MissReason reason) {
    return switch (reason) {
      case ABSENT -> io.kvtier.v1.Miss.MISS_ABSENT;
      case CORRUPT -> io.kvtier.v1.Miss.MISS_CORRUPT;
    };
  }

  /** The methods without page bytes. */
  private final class Small extends PagesGrpc.PagesImplBase {
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
    public void direct(DirectRequest request, StreamObserver<DirectResponse> out) {
      out.onNext(
          Callers.near()
              ? direct
              : direct.toBuilder().clearPagesDirectory().clearPagesInstance().build());
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

    @Override
    public void check(CheckRequest request, StreamObserver<CheckResponse> out) {
      int removed = 0;
      for (PageKey key : PageRequests.keys(request.getKeysList())) {
        removed += pages.check(key) ? 1 : 0;
      }
      out.onNext(CheckResponse.newBuilder().setRemoved(removed).build());
      out.onCompleted();
    }

    @Override
    public void touch(TouchRequest request, StreamObserver<TouchResponse> out) {
      List<PageKey> keys =
          request.getKeysCount() == 0 ? List.of() : PageRequests.keys(request.getKeysList());
      pages.readInFiles(keys, request.getReads(), request.getBytes());
      out.onNext(TouchResponse.getDefaultInstance());
      out.onCompleted();
    }

    @Override
    public void score(ScoreRequest request, StreamObserver<ScoreResponse> out) {
      if (near == null) {
        super.score(request, out);
      } else {
        near.score(request, out);
      }
    }

    @Override
    public void attend(AttendRequest request, StreamObserver<AttendResponse> out) {
      if (near == null) {
        super.attend(request, out);
      } else {
        near.attend(request, out);
      }
    }

    @Override
    public void lease(LeaseRequest request, StreamObserver<LeaseResponse> out) {
      if (leases == null) {
        super.lease(request, out);
      } else {
        leases.lease(request, out);
      }
    }

    @Override
    public void release(ReleaseRequest request, StreamObserver<ReleaseResponse> out) {
      if (leases == null) {
        super.release(request, out);
      } else {
        leases.release(request, out);
      }
    }

    @Override
    public void watch(WatchRequest request, StreamObserver<WatchResponse> out) {
      if (watchers == null) {
        super.watch(request, out);
      } else {
        watchers.watch(request, (ServerCallStreamObserver<WatchResponse>) out);
      }
    }
  }
}
