package io.kvtier.wire;

import io.kvtier.KvtierException;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.SocketChannel;
import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * One end of a connection of {@link Frames}. Frames are read where the system has put them and
 * written from direct memory; both buffers grow to the longest frame so far, never above the bound.
 * Blocking; one thread at a time, but for {@link #close}.
 */
public final class FrameChannel implements AutoCloseable {
  private static final int IN_BYTES = 512 << 10;
  private static final int OUT_BYTES = 256 << 10;

  private final SocketChannel channel;
  private final int bodyBytesMax;
  private final BufferBudget budget;
  private ByteBuffer in = ByteBuffer.allocateDirect(IN_BYTES).order(ByteOrder.LITTLE_ENDIAN);
  private final UnsafeBuffer inView = new UnsafeBuffer(in);
  private ByteBuffer out = ByteBuffer.allocateDirect(OUT_BYTES).order(ByteOrder.LITTLE_ENDIAN);
  private final UnsafeBuffer outView = new UnsafeBuffer(out);

  /** Bytes of {@link #in} that have been received. */
  private int received;

  /** Where the next frame begins. */
  private int next;

  private byte kind;
  private int bodyAt;
  private int bodyLength;

  /**
   * An end of a connection, which it owns.
   *
   * @param bodyBytesMax longest body that is taken
   */
  public FrameChannel(SocketChannel channel, int bodyBytesMax) {
    this(channel, bodyBytesMax, BufferBudget.unbounded());
  }

  /**
   * An end of a connection, which it owns. Its buffers count to the budget until {@link
   * #giveBuffersBack}.
   *
   * @param bodyBytesMax longest body that is taken
   * @throws KvtierException EXHAUSTED if the budget has not enough for a start
   */
  public FrameChannel(SocketChannel channel, int bodyBytesMax, BufferBudget budget) {
    budget.take(IN_BYTES + OUT_BYTES);
    this.budget = budget;
    this.channel = channel;
    this.bodyBytesMax = bodyBytesMax;
  }

  /** Sends the greeting. */
  public void greet() throws IOException {
    room(Long.BYTES).putLong(Frames.GREETING);
    flush();
  }

  /** Waits for the other end's greeting. */
  public void awaitGreeting() throws IOException {
    if (!await(Long.BYTES) || in.getLong(next) != Frames.GREETING) {
      throw KvtierException.invalid(
          "the other end does not speak this protocol or this version of it");
    }
    next += Long.BYTES;
  }

  /**
   * Waits for the next frame; the one before is gone then. False if the other end has closed the
   * connection between two frames.
   *
   * @throws KvtierException INVALID if its body is longer than the bound
   */
  public boolean nextFrame() throws IOException {
    if (!await(Frames.HEADER_BYTES)) {
      return false;
    }
    int length = in.getInt(next);
    if (length < 0 || length > bodyBytesMax) {
      throw KvtierException.invalid(
          "frame has a body of %s bytes; it must have 0..%d",
          Integer.toUnsignedString(length), bodyBytesMax);
    }
    if (!await(Frames.HEADER_BYTES + length)) {
      throw new EOFException("the connection was closed inside a frame");
    }
    kind = in.get(next + Integer.BYTES);
    bodyAt = next + Frames.HEADER_BYTES;
    bodyLength = length;
    next = bodyAt + length;
    return true;
  }

  /** Whether more has been received than the frame read last. */
  public boolean hasMore() {
    return next < received;
  }

  /** Waits until so many bytes from {@link #next} on are there; false at the end of the stream. */
  private boolean await(int bytes) throws IOException {
    if (next == received) {
      next = 0;
      received = 0;
    }
    if (next + bytes > in.capacity()) {
      moveToStart(bytes);
    }
    while (received - next < bytes) {
      int read = channel.read(in.limit(in.capacity()).position(received));
      if (read < 0) {
        if (received == next) {
          return false;
        }
        throw new EOFException("the connection was closed inside a frame");
      }
      received += read;
    }
    return true;
  }

  private void moveToStart(int bytes) {
    ByteBuffer rest = in.slice(next, received - next);
    if (bytes > in.capacity()) {
      budget.take(bytes - in.capacity());
      in = ByteBuffer.allocateDirect(bytes).order(ByteOrder.LITTLE_ENDIAN).put(rest).clear();
      inView.wrap(in);
    } else {
      in.clear().put(rest);
    }
    received -= next;
    next = 0;
  }

  /** Kind of the frame read last. */
  public byte kind() {
    return kind;
  }

  /** The body of the frame read last, in place: valid until the next is read. */
  public BufferBytes body() {
    return new BufferBytes(inView, bodyAt, bodyLength);
  }

  /** The body of the frame read last as a buffer, in place: valid until the next is read. */
  public ByteBuffer bodyBuffer() {
    return in.slice(bodyAt, bodyLength);
  }

  /** Room for so many bytes; sends what waits if it would not fit otherwise. */
  public ByteBuffer room(int bytes) throws IOException {
    if (out.remaining() < bytes && out.position() > 0) {
      flush();
    }
    grow(bytes);
    return out;
  }

  /** Makes room by memory alone, without sending. */
  private void grow(int bytes) {
    if (out.remaining() < bytes) {
      ByteBuffer larger = largerThanOut(out.position() + bytes);
      out = larger.order(ByteOrder.LITTLE_ENDIAN).put(out.flip());
    }
  }

  private ByteBuffer largerThanOut(int bytes) {
    int capacity = Math.max(2 * out.capacity(), bytes);
    budget.take(capacity - out.capacity());
    return ByteBuffer.allocateDirect(capacity);
  }

  /**
   * Between two requests: lets go what the buffers have grown by, if such memory is scarce. What
   * was read last is gone then.
   */
  public void shrinkIfScarce() {
    if (!budget.scarce()) {
      return;
    }
    if (in.capacity() > IN_BYTES && next == received) {
      budget.giveBack(in.capacity() - IN_BYTES);
      in = ByteBuffer.allocateDirect(IN_BYTES).order(ByteOrder.LITTLE_ENDIAN);
      inView.wrap(in);
      next = 0;
      received = 0;
    }
    if (out.capacity() > OUT_BYTES && out.position() == 0) {
      budget.giveBack(out.capacity() - OUT_BYTES);
      out = ByteBuffer.allocateDirect(OUT_BYTES).order(ByteOrder.LITTLE_ENDIAN);
    }
  }

  /** Its buffers are not to be used any more, and count no longer; to be called once. */
  public void giveBuffersBack() {
    budget.giveBack((long) in.capacity() + out.capacity());
  }

  /** Adds a frame to what waits to be sent. Sends nothing, so it may be called under a lock. */
  public void add(byte frameKind, OutgoingBytes message) {
    grow(Frames.HEADER_BYTES + message.length());
    Frames.header(out, message.length(), frameKind);
    for (OutgoingBytes.Piece piece : message.pieces()) {
      out.put(piece.head(), 0, piece.headLength());
      add(piece.bytes(), piece.offset(), piece.length());
    }
  }

  private void add(DirectBuffer bytes, int offset, int length) {
    bytes.getBytes(offset, out, out.position(), length);
    out.position(out.position() + length);
  }

  /** Adds a frame without a body. */
  public void add(byte frameKind) {
    grow(Frames.HEADER_BYTES);
    Frames.header(out, 0, frameKind);
  }

  /**
   * The memory of what waits to be sent, at least {@code bytes} long, with its first {@code kept}
   * bytes kept: for a frame whose body is written in place, {@link Frames#HEADER_BYTES} behind
   * {@link #waiting}, and then {@linkplain #addWritten added}. Valid until anything else is added.
   */
  public MutableDirectBuffer ensure(int bytes, int kept) {
    if (bytes > out.capacity()) {
      ByteBuffer larger = largerThanOut(bytes);
      larger.put(0, out, 0, kept).position(out.position());
      out = larger.order(ByteOrder.LITTLE_ENDIAN);
    }
    outView.wrap(out);
    return outView;
  }

  /** Adds a frame whose body has been written in place. */
  public void addWritten(byte frameKind, int bodyBytes) {
    Frames.header(out, bodyBytes, frameKind);
    out.position(out.position() + bodyBytes);
  }

  /** Bytes that wait to be sent. */
  public int waiting() {
    return out.position();
  }

  /** Sends what waits. */
  public void flush() throws IOException {
    out.flip();
    while (out.hasRemaining()) {
      channel.write(out);
    }
    out.clear();
  }

  /**
   * Ends this direction and takes in what the other end has still under way, so that the system
   * does not throw away what was sent last.
   */
  public void finish() throws IOException {
    channel.shutdownOutput();
    while (channel.read(in.clear()) >= 0) {}
  }

  /** Closes the connection, from any thread; a call that waits on it fails. Idempotent. */
  @Override
  public void close() throws IOException {
    channel.close();
  }
}
