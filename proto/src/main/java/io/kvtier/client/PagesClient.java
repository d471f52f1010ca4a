package io.kvtier.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.AttendRequest;
import io.kvtier.v1.CheckRequest;
import io.kvtier.v1.ContainsRequest;
import io.kvtier.v1.ContainsResponse;
import io.kvtier.v1.DeleteRequest;
import io.kvtier.v1.DirectRequest;
import io.kvtier.v1.DirectResponse;
import io.kvtier.v1.GetRequest;
import io.kvtier.v1.GetRowsRequest;
import io.kvtier.v1.GetSectionsRequest;
import io.kvtier.v1.LeaseRequest;
import io.kvtier.v1.PutResponse;
import io.kvtier.v1.ReleaseRequest;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import io.kvtier.v1.TouchRequest;
import io.kvtier.wire.IncomingBytes;
import io.kvtier.wire.PageMessages;
import io.kvtier.wire.PagesMethods;
import io.kvtier.wire.Staging;
import java.io.IOException;
import java.time.Duration;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.BiConsumer;
import java.util.function.Consumer;
import java.util.function.IntFunction;
import java.util.function.ObjIntConsumer;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.agrona.DirectBuffer;

/**
 * A tier node's pages, from any thread. Every call blocks until its answer or its deadline. Batches
 * of any length are cut to what the node takes at once. What arrives is verified once more here:
 * whole pages by their header and all sections, sections and rows by the checksums that come with
 * them.
 */
public final class PagesClient implements PageTransport {
  private static final Logger LOG = Logger.getLogger(PagesClient.class.getName());

  /** Most keys in one request. */
  public static final int BATCH_MAX = 1024;

  /** Longest page, and longest answer for one page, in bytes. */
  private static final int PAGE_BYTES_MAX = 16 << 20;

  /** Pages of whose places memory is asked ahead. */
  private static final int PLACES_AHEAD = 8;

  private static final long MILLISECOND_NS = 1_000_000;

  /** Frames lie in one piece and are read there; nothing is put together in this. */
  private static final Staging IN_PLACE = Staging.offHeap(PAGE_BYTES_MAX);

  private final GrpcPages grpc;
  private final String peer;
  private final AnswerChecks checks;
  private final Duration deadline;
  private final DirectPath direct;

  /** How a client is set up. */
  public enum Option {
    /**
     * Leaves out the verification here. The tier has verified what it sends; nobody has verified
     * what is read in its files.
     */
    TRUSTING,
    /** Uses gRPC alone, though the tier may have a direct path, and its files be at hand. */
    GRPC_ONLY,
    /** Does not read the tier's files, though they may be at hand. */
    WIRE_ONLY
  }

  /** Opens a client; nothing is sent until the first call. */
  public PagesClient(String target, Duration deadline, Option... options) {
    Set<Option> set = Set.of(options);
    this.peer = "the tier at " + target;
    this.grpc = new GrpcPages(target, peer, PAGE_BYTES_MAX);
    boolean verify = !set.contains(Option.TRUSTING);
    this.checks = new AnswerChecks(peer, verify, this::tellFlawed);
    this.deadline = deadline;
    this.direct =
        new DirectPath(
            target,
            peer,
            deadline,
            () ->
                set.contains(Option.GRPC_ONLY)
                    ? DirectResponse.getDefaultInstance()
                    : grpc.unary(deadline).direct(DirectRequest.getDefaultInstance()),
            this::tellTouched,
            !set.contains(Option.WIRE_ONLY),
            verify);
  }

  @Override
  public void put(List<KeyedPage> pages) {
    long startNs = System.nanoTime();
    boolean ordinary = pages.stream().allMatch(page -> page.page().size() <= PAGE_BYTES_MAX);
    DirectPages path = ordinary ? direct.pages() : null;
    if (path != null) {
      try {
        int[] acknowledged = {0};
        path.put(pages, ack -> requireAcknowledges(pages, acknowledged[0]++, ack));
        return;
      } catch (IOException e) {
        // Pages are immutable, so all can be put again.
        direct.failed(path, e);
      }
    }
    // A call is charged to one tenant.
    for (int from = 0; from < pages.size(); ) {
      int end = KeyedPage.endOfTenant(pages, from);
      List<KeyedPage> part = pages.subList(from, end);
      int[] acknowledged = {0};
      grpc.put(part, left(startNs), ack -> requireAcknowledges(part, acknowledged[0]++, ack));
      from = end;
    }
  }

  private void requireAcknowledges(List<KeyedPage> pages, int index, PutResponse response) {
    if (index >= pages.size() || !response.getKey().equals(pages.get(index).key().toByteString())) {
      throw new KvtierException(
          Code.INTERNAL, peer + " acknowledged another page than the one that was due");
    }
  }

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    read(
        keys,
        (bytes, offset, length, index) -> consumer.accept(copy(bytes, offset, length), index));
  }

  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    readSections(
        wanted,
        (bytes, offset, length, index) -> consumer.accept(copy(bytes, offset, length), index));
  }

  static ByteString copy(DirectBuffer bytes, int offset, int length) {
    byte[] copy = new byte[length];
    bytes.getBytes(offset, copy);
    return UnsafeByteOperations.unsafeWrap(copy);
  }

  @Override
  public void read(List<PageKey> keys, PageConsumer consumer) {
    readNear(
        keys.size(),
        keys::get,
        (local, index, memory) -> local.page(keys.get(index), memory),
        (from, to) -> readFar(keys, from, to, consumer),
        consumer);
  }

  private void readFar(List<PageKey> keys, int begin, int end, PageConsumer consumer) {
    for (int from = begin; from < end; from += BATCH_MAX) {
      List<PageKey> batch = keys.subList(from, Math.min(end, from + BATCH_MAX));
      GetRequest.Builder request = GetRequest.newBuilder();
      batch.forEach(key -> request.addKeys(key.toByteString()));
      GetRequest built = request.build();
      AnswerBatch reading = batch(from, batch.size(), batch::get, consumer);
      BiConsumer<IncomingBytes, Staging> reader =
          (in, staging) -> reading.accept(PageMessages.readGet(in, staging), checks::requirePage);
      long startNs = System.nanoTime();
      if (!readDirectly(reading, reader, (path, answers) -> path.get(built, answers))) {
        grpc.read(PagesMethods.GET, built, reading, reader, left(startNs));
      }
    }
  }

  @Override
  public void readSections(List<SectionsOf> wanted, PageConsumer consumer) {
    readNear(
        wanted.size(),
        index -> PageKey.of(wanted.get(index).getKey()),
        (local, index, memory) -> local.sections(wanted.get(index), memory),
        (from, to) -> readFarSections(wanted, from, to, consumer),
        consumer);
  }

  private void readFarSections(List<SectionsOf> wanted, int begin, int end, PageConsumer consumer) {
    for (int from = begin; from < end; from += BATCH_MAX) {
      List<SectionsOf> batch = wanted.subList(from, Math.min(end, from + BATCH_MAX));
      GetSectionsRequest request = GetSectionsRequest.newBuilder().addAllPages(batch).build();
      AnswerBatch reading =
          batch(from, batch.size(), i -> PageKey.of(batch.get(i).getKey()), consumer);
      BiConsumer<IncomingBytes, Staging> reader =
          (in, staging) ->
              PageMessages.readSections(
                  in, staging, answer -> reading.accept(answer, checks::requireSections));
      long startNs = System.nanoTime();
      if (!readDirectly(reading, reader, (path, answers) -> path.getSections(request, answers))) {
        grpc.read(PagesMethods.GET_SECTIONS, request, reading, reader, left(startNs));
      }
    }
  }

  @Override
  public void readRows(PageLayout layout, List<RowsOf> wanted, PageConsumer consumer) {
    RowsAsked rows = new RowsAsked(layout);
    readNear(
        wanted.size(),
        index -> PageKey.of(wanted.get(index).getKey()),
        (local, index, memory) -> {
          ask(local, index, wanted, rows);
          return local.rows(wanted.get(index), rows, memory);
        },
        (from, to) -> readFarRows(rows, wanted, from, to, consumer),
        consumer);
  }

  /** Asks memory for the pages after one: few of their lines are where a processor expects them. */
  private static void ask(LocalPages local, int index, List<RowsOf> wanted, RowsAsked rows) {
    if (index + PLACES_AHEAD < wanted.size()) {
      local.askForPlace(wanted.get(index + PLACES_AHEAD));
    }
    if (index + 1 < wanted.size()) {
      local.askForRows(wanted.get(index + 1), rows);
    }
  }

  private void readFarRows(
      RowsAsked rows, List<RowsOf> wanted, int begin, int end, PageConsumer consumer) {
    for (int from = begin; from < end; from += BATCH_MAX) {
      List<RowsOf> batch = wanted.subList(from, Math.min(end, from + BATCH_MAX));
      GetRowsRequest request = GetRowsRequest.newBuilder().addAllPages(batch).build();
      AnswerBatch reading =
          batch(from, batch.size(), i -> PageKey.of(batch.get(i).getKey()), consumer);
      AnswerChecks.Check check =
          (key, answer) -> checks.requireRows(key, answer, rows.bytes(batch.get(answer.index())));
      BiConsumer<IncomingBytes, Staging> reader =
          (in, staging) ->
              PageMessages.readRows(in, staging, answer -> reading.accept(answer, check));
      long startNs = System.nanoTime();
      if (!readDirectly(reading, reader, (path, answers) -> path.getRows(request, answers))) {
        grpc.read(PagesMethods.GET_ROWS, request, reading, reader, left(startNs));
      }
    }
  }

  /** Reads one of what is asked in the tier's files; its bytes, or 0. */
  private interface NearRead {
    int of(LocalPages local, int index, LocalPages.Memory memory);
  }

  /** Reads some of what is asked over the wire. */
  private interface FarRead {
    void of(int from, int to);
  }

  /** Reads in the tier's files where they are at hand, and over the wire what is not in them. */
  private void readNear(
      int size, IntFunction<PageKey> keys, NearRead near, FarRead far, PageConsumer consumer) {
    LocalPages local = direct.local();
    if (local == null) {
      far.of(0, size);
      return;
    }
    LocalPages.Memory memory = local.borrow();
    try {
      for (int at = 0; at < size; ) {
        int bytes = near.of(local, at, memory);
        if (bytes > 0) {
          consumer.accept(memory.body(), 0, bytes, at++);
        } else {
          int from = at++;
          while (at < size && !local.has(keys.apply(at))) {
            at++;
          }
          far.of(from, at);
        }
      }
    } finally {
      local.giveBack(memory);
    }
  }

  /** Reads that were served in the tier's files so far, since they were found. */
  public long localReads() {
    LocalPages local = direct.local();
    return local == null ? 0 : local.hits();
  }

  private AnswerBatch batch(int from, int size, IntFunction<PageKey> keys, PageConsumer consumer) {
    return new AnswerBatch(peer, PAGE_BYTES_MAX, from, size, keys, consumer);
  }

  /** What is left of a call's time after it was tried the direct way; at least 1 ms. */
  private Duration left(long startNs) {
    long leftNs = deadline.toNanos() - (System.nanoTime() - startNs);
    return Duration.ofNanos(Math.max(MILLISECOND_NS, leftNs));
  }

  private interface DirectRead {
    void with(DirectPages path, Consumer<IncomingBytes> answers) throws IOException;
  }

  /** False if the batch has to be read over gRPC. */
  private boolean readDirectly(
      AnswerBatch batch, BiConsumer<IncomingBytes, Staging> reader, DirectRead read) {
    DirectPages path = direct.pages();
    if (path == null) {
      return false;
    }
    try {
      read.with(path, in -> reader.accept(in, IN_PLACE));
    } catch (IOException e) {
      direct.failed(path, e);
      if (batch.served() == 0) {
        return false;
      }
      throw new KvtierException(
          Code.UNAVAILABLE, "%s broke off its answers: %s".formatted(peer, e.getMessage()), e);
    }
    if (!batch.complete()) {
      throw new KvtierException(Code.INTERNAL, peer + " ended its answers before the last");
    }
    return true;
  }

  /**
   * Has the tier look at a page that did not come whole: it may verify nothing itself, and removes
   * it if it is flawed there. On a thread of its own, since an answer is being read.
   */
  private void tellFlawed(PageKey key) {
    Thread.ofVirtual()
        .name("kvtier-check")
        .start(() -> {
          CheckRequest request = CheckRequest.newBuilder().addKeys(key.toByteString()).build();
          try {
            var _ = grpc.call(deadline, stub -> stub.check(request));
          } catch (KvtierException e) {
            // The reader is told that the page is lost all the same; the scrub finds it too.
            LOG.log(Level.FINE, "page " + key + " is not looked at by " + peer, e);
          }
        });
  }

  private void tellTouched(TouchRequest touched) {
    try {
      var _ = grpc.call(deadline, stub -> stub.touch(touched));
    } catch (KvtierException e) {
      // The pages may be evicted sooner; the next report comes soon.
      LOG.log(Level.FINE, "reads in its files are not told to " + peer, e);
    }
  }

  @Override
  public BitSet contains(List<PageKey> keys) {
    BitSet stored = new BitSet(keys.size());
    for (int from = 0; from < keys.size(); from += BATCH_MAX) {
      List<PageKey> batch = keys.subList(from, Math.min(keys.size(), from + BATCH_MAX));
      BitSet found = containsOf(batch);
      for (int i = found.nextSetBit(0); i >= 0; i = found.nextSetBit(i + 1)) {
        stored.set(from + i);
      }
    }
    return stored;
  }

  private BitSet containsOf(List<PageKey> batch) {
    long startNs = System.nanoTime();
    DirectPages path = direct.pages();
    if (path != null) {
      try {
        return path.contains(batch);
      } catch (IOException e) {
        direct.failed(path, e);
      }
    }
    ContainsRequest.Builder request = ContainsRequest.newBuilder();
    batch.forEach(key -> request.addKeys(key.toByteString()));
    ContainsResponse response = grpc.call(left(startNs), stub -> stub.contains(request.build()));
    if (response.getStoredCount() != batch.size()) {
      throw new KvtierException(
          Code.INTERNAL,
          "%s answered for %d pages of %d"
              .formatted(peer, response.getStoredCount(), batch.size()));
    }
    BitSet stored = new BitSet(batch.size());
    for (int i = 0; i < batch.size(); i++) {
      stored.set(i, response.getStored(i));
    }
    return stored;
  }

  @Override
  public Optional<NearPages.Attended> attend(
      List<PageKey> keys, NearPages.Queries queries, long[] tokens) {
    NearSum sum = new NearSum(queries);
    for (int from = 0; from < keys.size(); from += BATCH_MAX) {
      int first = from;
      int to = Math.min(keys.size(), from + BATCH_MAX);
      long[] wanted = tokens.length == 0 ? tokens : Arrays.copyOfRange(tokens, from, to);
      AttendRequest request = NearMessages.request(keys.subList(from, to), queries, wanted);
      sum.add(
          NearMessages.attended(request, grpc.call(deadline, stub -> stub.attend(request)), peer),
          index -> first + index);
    }
    return Optional.of(sum.result());
  }

  @Override
  public void delete(List<PageKey> keys) {
    for (int from = 0; from < keys.size(); from += BATCH_MAX) {
      DeleteRequest.Builder request = DeleteRequest.newBuilder();
      keys.subList(from, Math.min(keys.size(), from + BATCH_MAX))
          .forEach(key -> request.addKeys(key.toByteString()));
      var _ = grpc.call(deadline, stub -> stub.delete(request.build()));
    }
  }

  /**
   * Begins or renews an owner's lease and pins keys, as {@code Pages.Lease} says.
   *
   * @param leaseId the lease that must still run; 0: any, or a new one
   * @param keys at most {@link #BATCH_MAX}
   * @return the lease's id
   * @throws KvtierException NOT_FOUND if the lease has ended, PRECONDITION if the epoch is stale,
   *     EXHAUSTED if a bound of leases is reached
   */
  public long lease(String owner, long epoch, long leaseId, Duration ttl, List<PageKey> keys) {
    LeaseRequest.Builder request =
        LeaseRequest.newBuilder()
            .setOwner(owner)
            .setEpoch(epoch)
            .setLeaseId(leaseId)
            .setTtlMs(ttl.toMillis());
    keys.forEach(key -> request.addKeys(key.toByteString()));
    return grpc.call(deadline, stub -> stub.lease(request.build())).getLeaseId();
  }

  /** Lets some keys of an owner's lease go, at most {@link #BATCH_MAX}; none: all. */
  public void release(String owner, long epoch, List<PageKey> keys) {
    ReleaseRequest.Builder request = ReleaseRequest.newBuilder().setOwner(owner).setEpoch(epoch);
    keys.forEach(key -> request.addKeys(key.toByteString()));
    var _ = grpc.call(deadline, stub -> stub.release(request.build()));
  }

  @Override
  public void close() {
    direct.close();
    grpc.close();
  }
}
