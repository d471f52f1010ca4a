package io.kvtier.client;

import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.kvtier.KvtierException;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Statuses;
import io.kvtier.rpc.Tenant;
import io.kvtier.v1.PagesGrpc;
import io.kvtier.v1.PutRequest;
import io.kvtier.v1.PutResponse;
import io.kvtier.wire.IncomingBytes;
import io.kvtier.wire.PagesMethods;
import io.kvtier.wire.Staging;
import java.time.Duration;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.BiConsumer;
import java.util.function.Consumer;
import java.util.function.Function;

/** A tier's pages over gRPC. Safe for any number of threads. */
final class GrpcPages implements AutoCloseable {
  /** Bytes of pages on their way to the tier before an acknowledgement is waited for. */
  private static final int PUT_AHEAD_BYTES = 8 << 20;

  /** Bytes of pages that may wait here to be read. */
  private static final int GET_AHEAD_BYTES = 4 << 20;

  /** Answers that may wait before the first has told how long a page is. */
  private static final int GET_AHEAD_FIRST = 4;

  private static final int GET_AHEAD_MAX = 64;
  private static final int STAGINGS_KEPT = 8;

  private final ManagedChannel channel;
  private final String peer;
  private final int pageBytesMax;
  private final Queue<Staging> stagings = new ArrayBlockingQueue<>(STAGINGS_KEPT);

  GrpcPages(String target, String peer, int pageBytesMax) {
    this.channel = Channels.open(target);
    this.peer = peer;
    this.pageBytesMax = pageBytesMax;
  }

  /** The methods of one request and one answer. */
  PagesGrpc.PagesBlockingStub unary(Duration time) {
    return PagesGrpc.newBlockingStub(channel)
        .withDeadlineAfter(time.toNanos(), TimeUnit.NANOSECONDS);
  }

  /**
   * Calls such a method.
   *
   * @throws KvtierException as the tier refuses
   */
  <R> R call(Duration time, Function<PagesGrpc.PagesBlockingStub, R> method) {
    try {
      return method.apply(unary(time));
    } catch (StatusRuntimeException e) {
      throw Statuses.fromStatus(e, peer);
    }
  }

  /** Puts pages of one tenant, with a bound of the bytes that are on their way. */
  void put(List<KeyedPage> pages, Duration time, Consumer<PutResponse> acks) {
    int[] acknowledged = {0};
    Channel charged =
        ClientInterceptors.intercept(channel, Tenant.attach(pages.getFirst().tenant()));
    try (CallerCall<PutRequest, PutResponse> call =
        new CallerCall<>(
            charged,
            PagesMethods.PUT,
            time,
            peer,
            ack -> {
              acks.accept(ack);
              acknowledged[0]++;
            })) {
      call.request(Math.max(1, pages.size()));
      int sent = 0;
      int counted = 0;
      long underWay = 0;
      boolean finished = false;
      while (!call.ended()) {
        for (; counted < acknowledged[0]; counted++) {
          underWay -= pages.get(counted).page().size();
        }
        while (sent < pages.size() && call.isReady() && underWay < PUT_AHEAD_BYTES) {
          KeyedPage page = pages.get(sent++);
          call.send(
              PutRequest.newBuilder()
                  .setKey(page.key().toByteString())
                  .setPage(page.page())
                  .build());
          underWay += page.page().size();
        }
        if (sent == pages.size() && !finished) {
          finished = true;
          call.finish();
        }
        call.turn();
      }
      if (acknowledged[0] < pages.size()) {
        throw call.early();
      }
    }
  }

  /** Runs a call to its end. Asks for as many answers ahead as their lengths allow. */
  <Q> void read(
      MethodDescriptor<Q, IncomingBytes> method,
      Q request,
      AnswerBatch batch,
      BiConsumer<IncomingBytes, Staging> reader,
      Duration time) {
    Staging kept = stagings.poll();
    Staging staging = kept == null ? Staging.offHeap(pageBytesMax) : kept;
    int[] received = {0};
    int[] ahead = {GET_AHEAD_FIRST};
    try (CallerCall<Q, IncomingBytes> call =
        new CallerCall<>(
            channel,
            method,
            time,
            peer,
            in -> {
              received[0]++;
              ahead[0] = Math.clamp(GET_AHEAD_BYTES / Math.max(1, in.length()), 2, GET_AHEAD_MAX);
              reader.accept(in, staging);
            })) {
      call.request(GET_AHEAD_FIRST);
      int requested = GET_AHEAD_FIRST;
      call.send(request);
      call.finish();
      while (!call.ended()) {
        int due = received[0] + ahead[0] - requested;
        if (due >= ahead[0] / 2 && !batch.complete()) {
          call.request(due);
          requested += due;
        }
        call.turn();
      }
      if (!batch.complete()) {
        throw call.early();
      }
    } finally {
      stagings.offer(staging);
    }
  }

  @Override
  public void close() {
    Channels.close(channel);
  }
}
