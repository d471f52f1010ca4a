package io.kvtier.wire;

import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.Marshaller;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.GetRowsRequest;
import io.kvtier.v1.GetSectionsRequest;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.PutRequest;
import io.kvtier.v1.PutResponse;
import java.io.InputStream;

/**
 * The methods of the Pages service whose messages carry page bytes, for each end that handles them
 * itself. Names and bytes on the wire are those of the generated methods, so that either end may be
 * any gRPC peer.
 */
public final class PagesMethods {
  /** Get as the tier answers it: bytes go from where they lie into the transport's buffer. */
  public static final MethodDescriptor<GetRequest, OutgoingBytes> SERVED_GET =
      sent(PagesGrpc.getGetMethod());

  /** GetSections as the tier answers it. */
  public static final MethodDescriptor<GetSectionsRequest, OutgoingBytes> SERVED_GET_SECTIONS =
      sent(PagesGrpc.getGetSectionsMethod());

  /** GetRows as the tier answers it. */
  public static final MethodDescriptor<GetRowsRequest, OutgoingBytes> SERVED_GET_ROWS =
      sent(PagesGrpc.getGetRowsMethod());

  /** Put as the tier hears it. */
  public static final MethodDescriptor<IncomingBytes, PutResponse> SERVED_PUT =
      PagesGrpc.getPutMethod().toBuilder(
              new Incoming(), PagesGrpc.getPutMethod().getResponseMarshaller())
          .build();

  /** Get as a client hears it. */
  public static final MethodDescriptor<GetRequest, IncomingBytes> GET =
      heard(PagesGrpc.getGetMethod());

  /** GetSections as a client hears it. */
  public static final MethodDescriptor<GetSectionsRequest, IncomingBytes> GET_SECTIONS =
      heard(PagesGrpc.getGetSectionsMethod());

  /** GetRows as a client hears it. */
  public static final MethodDescriptor<GetRowsRequest, IncomingBytes> GET_ROWS =
      heard(PagesGrpc.getGetRowsMethod());

  /** Put as a client sends it: the generated message copies the page once, as this would. */
  public static final MethodDescriptor<PutRequest, PutResponse> PUT = PagesGrpc.getPutMethod();

  private PagesMethods() {}

  private static <Q> MethodDescriptor<Q, OutgoingBytes> sent(MethodDescriptor<Q, ?> generated) {
    return generated.toBuilder(generated.getRequestMarshaller(), new Outgoing()).build();
  }

  private static <Q> MethodDescriptor<Q, IncomingBytes> heard(MethodDescriptor<Q, ?> generated) {
    return generated.toBuilder(generated.getRequestMarshaller(), new Incoming()).build();
  }

  private static final class Outgoing implements Marshaller<OutgoingBytes> {
    @Override
    public InputStream stream(OutgoingBytes message) {
      return new DrainedStream(message);
    }

    @Override
    public OutgoingBytes parse(InputStream stream) {
      throw new UnsupportedOperationException("an answer is only sent at this end");
    }
  }

  private static final class Incoming implements Marshaller<IncomingBytes> {
    @Override
    public InputStream stream(IncomingBytes message) {
      throw new UnsupportedOperationException("the message is only received at this end");
    }

    @Override
    public IncomingBytes parse(InputStream stream) {
      return new StreamBytes(stream);
    }
  }
}
