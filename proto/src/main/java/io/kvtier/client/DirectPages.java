package io.kvtier.client;

import static java.nio.charset.StandardCharsets.US_ASCII;

import io.grpc.Status;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.TenantName;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.page.PageKey;
import io.kvtier.rpc.Statuses;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.GetRowsRequest;
import io.kvtier.v1.GetSectionsRequest;
import io.kvtier.v1.PutResponse;
import io.kvtier.wire.FrameChannel;
import io.kvtier.wire.Frames;
import io.kvtier.wire.IncomingBytes;
import io.kvtier.wire.OutgoingBytes;
import io.kvtier.wire.PageMessages;
import io.kvtier.wire.SocketBuffers;
import java.io.EOFException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.BitSet;
import java.util.Deque;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A tier's pages over its direct path ({@link Frames}). Each call has a connection to itself; idle
 * ones are kept for the next. An IOException says that the path, or a kept connection, is broken:
 * the call may be made again another way. Safe for any number of threads.
 */
final class DirectPages implements AutoCloseable {
  private static final int ANSWER_BYTES_MAX = 64 << 20;
  private static final int KEPT_MAX = 16;

  /** Idle connections are kept so long: less than the tier waits before it closes them. */
  private static final long KEPT_NS = TimeUnit.MINUTES.toNanos(1);

  private static final int CONNECT_TIMEOUT_MS = 1000;

  /** Pages on their way before an acknowledgement is waited for. */
  private static final int PUT_AHEAD = 4 * Frames.ACKS_HELD_MAX;

  private static final int SEND_BYTES = 128 << 10;
  private static final long SWEEP_NS_MIN = 1_000_000;
  private static final long SWEEP_NS_MAX = 50_000_000;

  private final SocketAddress address;
  private final String peer;
  private final Duration deadline;
  private final Deque<Idle> idle = new ConcurrentLinkedDeque<>();
  private final Set<Turn> turns = ConcurrentHashMap.newKeySet();
  private final Future<?> sweeping;
  private volatile boolean closed;

  DirectPages(SocketAddress address, String peer, Duration deadline) {
    this.address = address;
    this.peer = peer;
    this.deadline = deadline;
    long periodNs = Math.clamp(deadline.toNanos() / 8, SWEEP_NS_MIN, SWEEP_NS_MAX);
    this.sweeping =
        Timer.THREAD.scheduleWithFixedDelay(this::sweep, periodNs, periodNs, TimeUnit.NANOSECONDS);
  }

  /** One thread for the process. */
  static final class Timer {
    static final ScheduledExecutorService THREAD =
        Executors.newSingleThreadScheduledExecutor(
            Thread.ofPlatform().daemon().name("kvtier-deadlines").factory());
  }

  /**
   * A connection kept for the next call.
   *
   * @param tenant that puts over it are charged to
   */
  private record Idle(FrameChannel channel, long sinceNs, String tenant) {}

  /** A call under way. */
  private static final class Turn {
    private final FrameChannel channel;
    private final long endNs;
    private volatile boolean late;

    /** Nothing has come over its connection yet but the greeting. */
    private boolean fresh;

    /** That puts over its connection are charged to. */
    private String tenant;

    Turn(FrameChannel channel, String tenant, long endNs) {
      this.channel = channel;
      this.tenant = tenant;
      this.endNs = endNs;
    }
  }

  /**
   * Closes the connections of calls that are over their deadline. They are looked through from time
   * to time, since a timer for each call would wake its thread for each call.
   */
  private void sweep() {
    long nowNs = System.nanoTime();
    for (Turn turn : turns) {
      if (nowNs - turn.endNs > 0) {
        turn.late = true;
        closeQuietly(turn.channel);
      }
    }
    // The one used last is at the front.
    for (Idle last = idle.peekLast();
        last != null && nowNs - last.sinceNs() > KEPT_NS;
        last = idle.peekLast()) {
      if (idle.removeLastOccurrence(last)) {
        closeQuietly(last.channel());
      }
    }
    if (closed && turns.isEmpty()) {
      sweeping.cancel(false);
    }
  }

  private interface Conversation<T> {
    T with(Turn turn) throws IOException;
  }

  /**
   * Has a conversation.
   *
   * @param puts whether it puts pages: then EXHAUSTED may be the tier's last word about them, where
   *     a read can lack nothing but this path's memory
   * @throws IOException if it is to be tried over gRPC
   */
  private <T> T call(boolean puts, Conversation<T> conversation) throws IOException {
    long endNs = System.nanoTime() + deadline.toNanos();
    Idle used = idle.poll();
    Turn turn =
        used == null
            ? new Turn(connect(), TenantName.DEFAULT, endNs)
            : new Turn(used.channel(), used.tenant(), endNs);
    turns.add(turn);
    boolean whole = false;
    try {
      if (used == null) {
        // Under the deadline: a tier that is stopped takes connections and says nothing.
        turn.channel.greet();
        turn.channel.awaitGreeting();
        turn.fresh = true;
      }
      T result = conversation.with(turn);
      whole = true;
      return result;
    } catch (KvtierException e) {
      if ((turn.fresh || !puts) && e.code() == Code.EXHAUSTED) {
        // It may be the connections that are exhausted; over gRPC it is told what else is.
        throw new IOException("the direct path is exhausted: " + e.getMessage(), e);
      }
      throw e;
    } catch (IOException e) {
      if (turn.late) {
        throw new KvtierException(Code.DEADLINE, peer + " did not answer within " + deadline, e);
      }
      if (Thread.currentThread().isInterrupted()) {
        throw new KvtierException(Code.UNAVAILABLE, "interrupted while waiting for " + peer, e);
      }
      throw e;
    } finally {
      turns.remove(turn);
      if (whole && !turn.late && !closed && idle.size() < KEPT_MAX) {
        idle.push(new Idle(turn.channel, System.nanoTime(), turn.tenant));
        if (closed) {
          close();
        }
      } else {
        closeQuietly(turn.channel);
      }
    }
  }

  private FrameChannel connect() throws IOException {
    SocketChannel socket;
    if (address instanceof InetSocketAddress) {
      socket = SocketChannel.open();
      try {
        socket.setOption(StandardSocketOptions.TCP_NODELAY, true);
        SocketBuffers.bound(socket, address);
        socket.socket().connect(address, CONNECT_TIMEOUT_MS);
      } catch (IOException e) {
        socket.close();
        throw e;
      }
    } else {
      socket = SocketChannel.open(address);
    }
    return new FrameChannel(socket, ANSWER_BYTES_MAX);
  }

  /** As Pages.Get. */
  void get(GetRequest request, Consumer<IncomingBytes> answers) throws IOException {
    read(Frames.GET, request.toByteArray(), answers);
  }

  /** As Pages.GetSections. */
  void getSections(GetSectionsRequest request, Consumer<IncomingBytes> answers) throws IOException {
    read(Frames.SECTIONS, request.toByteArray(), answers);
  }

  /** As Pages.GetRows. */
  void getRows(GetRowsRequest request, Consumer<IncomingBytes> answers) throws IOException {
    read(Frames.ROWS, request.toByteArray(), answers);
  }

  private void read(byte kind, byte[] request, Consumer<IncomingBytes> answers) throws IOException {
    boolean _ =
        call(
            false,
            turn -> {
              FrameChannel channel = turn.channel;
              channel.add(kind, OutgoingBytes.whole(request));
              channel.flush();
              while (answered(channel)) {
                answers.accept(channel.body());
              }
              return true;
            });
  }

  /** As Pages.Contains: bit i for key i. */
  BitSet contains(List<PageKey> keys) throws IOException {
    return call(
        false,
        turn -> {
          FrameChannel channel = turn.channel;
          int length = keys.size() * PageKey.LENGTH;
          ByteBuffer body =
              channel.room(Frames.HEADER_BYTES + length).duplicate().order(ByteOrder.BIG_ENDIAN);
          int at = body.position() + Frames.HEADER_BYTES;
          for (PageKey key : keys) {
            key.write(body, at);
            at += PageKey.LENGTH;
          }
          channel.addWritten(Frames.CONTAINS, length);
          channel.flush();
          requireAnswer(channel);
          ByteBuffer bits = channel.bodyBuffer();
          if (bits.remaining() != (keys.size() + 7) / 8) {
            throw new KvtierException(
                Code.INTERNAL,
                "%s answered %d bytes for %d pages".formatted(peer, bits.remaining(), keys.size()));
          }
          return BitSet.valueOf(bits);
        });
  }

  /** As Pages.Put. */
  void put(List<KeyedPage> pages, Consumer<PutResponse> acks) throws IOException {
    boolean _ =
        call(
            true,
            turn -> {
              FrameChannel channel = turn.channel;
              int acknowledged = 0;
              for (int sent = 0; sent < pages.size(); sent++) {
                if (sent - acknowledged >= PUT_AHEAD) {
                  channel.flush();
                  acks.accept(acknowledgement(channel));
                  acknowledged++;
                }
                KeyedPage page = pages.get(sent);
                charge(turn, page.tenant());
                channel.add(
                    Frames.PUT,
                    OutgoingBytes.put(
                        page.key(), new UnsafeBuffer(page.page().asReadOnlyByteBuffer())));
                if (channel.waiting() >= SEND_BYTES) {
                  channel.flush();
                }
              }
              channel.flush();
              for (; acknowledged < pages.size(); acknowledged++) {
                acks.accept(acknowledgement(channel));
              }
              return true;
            });
  }

  /** Has the puts that follow charged to a tenant. */
  private static void charge(Turn turn, String tenant) throws IOException {
    if (!tenant.equals(turn.tenant)) {
      turn.channel.add(Frames.TENANT, OutgoingBytes.whole(tenant.getBytes(US_ASCII)));
      turn.tenant = tenant;
    }
  }

  private PutResponse acknowledgement(FrameChannel channel) throws IOException {
    requireAnswer(channel);
    return PutResponse.parseFrom(channel.bodyBuffer());
  }

  private void requireAnswer(FrameChannel channel) throws IOException {
    if (!answered(channel)) {
      throw new KvtierException(Code.INTERNAL, peer + " ended its answers before the last");
    }
  }

  /** Waits for an answer; false if there are no more. */
  private boolean answered(FrameChannel channel) throws IOException {
    if (!channel.nextFrame()) {
      throw new EOFException(peer + " closed the connection");
    }
    return switch (channel.kind()) {
      case Frames.ANSWER -> true;
      case Frames.END -> false;
      case Frames.ERROR -> {
        PageMessages.Refusal refusal = PageMessages.readRefusal(channel.body());
        Status status = Status.fromCodeValue(refusal.code()).withDescription(refusal.message());
        throw Statuses.fromStatus(status.asRuntimeException(), peer);
      }
      default ->
          throw new KvtierException(
              Code.INTERNAL, "%s sent a frame of kind %d".formatted(peer, channel.kind()));
    };
  }

  private static void closeQuietly(FrameChannel channel) {
    try {
      channel.close();
    } catch (IOException e) {
      // It is closed all the same; there is nobody to tell.
    }
  }

  /** Closes idle connections; those in use close at their call's end. Idempotent. */
  @Override
  public void close() {
    closed = true;
    for (Idle each = idle.poll(); each != null; each = idle.poll()) {
      closeQuietly(each.channel());
    }
  }
}
