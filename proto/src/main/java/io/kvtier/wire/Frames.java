package io.kvtier.wire;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * The direct path for page bytes: the messages of {@code kvtier/v1/pages.proto} over a plain stream
 * socket, each in a frame, without HTTP/2 around them; CONTAINS alone has a form of its own, since
 * reading 128 keys out of a message took as long as the rest of the call.
 *
 * <pre>
 *   connection   8 bytes {@link #GREETING} each way, the client's first
 *   frame        0 length of the body (4, little-endian) | 4 kind (1) | 5 zero (3) | 8 body
 *   request      kind GET, SECTIONS, PUT, ROWS; its body is that method's request
 *                kind CONTAINS: 1..1024 page keys of 32 bytes, end to end
 *   tenant       kind TENANT, whose body is the tenant's name in ASCII: what is put over the
 *                connection from then on is charged to it; no answer
 *   answers      to GET, SECTIONS and ROWS: ANSWER frames as on gRPC, then END; to CONTAINS: one
 *                ANSWER with a bit a key, 1 where its page is stored; key i's is bit i % 8 of byte
 *                i / 8; to PUT: one ANSWER, which may wait until {@link #ACKS_HELD_MAX} are due or
 *                no further request has come
 *   refusal      ERROR, whose body is google.rpc.Status's code and message; it ends the connection
 * </pre>
 *
 * Requests may follow each other without waiting; they are answered in order.
 */
public final class Frames {
  /** "KVTIERB" and the version. */
  public static final long GREETING = 0x3242_5245_4954_564BL;

  public static final int HEADER_BYTES = 8;

  public static final byte ANSWER = 0;
  public static final byte END = 1;
  public static final byte ERROR = 2;
  public static final byte GET = 16;
  public static final byte SECTIONS = 17;
  public static final byte CONTAINS = 18;
  public static final byte PUT = 19;
  public static final byte ROWS = 20;
  public static final byte TENANT = 21;

  /** Acknowledgements that the tier may hold back while requests keep coming. */
  public static final int ACKS_HELD_MAX = 16;

  private Frames() {}

  /** Writes a frame's header. */
  public static void header(ByteBuffer out, int bodyBytes, byte kind) {
    out.order(ByteOrder.LITTLE_ENDIAN).putInt(bodyBytes).putInt(kind);
  }
}
