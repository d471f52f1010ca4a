package io.kvtier.gpuworker.grpc;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.NearPages;
import io.kvtier.client.PageConsumer;
import io.kvtier.client.PageTransport;
import io.kvtier.client.PagesClient;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.function.ObjIntConsumer;
import org.agrona.DirectBuffer;

/**
 * The pages of one tier node, wherever it is: a node that has come back at another address is found
 * there. A read is repeated only if it has given nothing to its consumer yet. Safe for any number
 * of threads.
 */
final class NodeTransport implements PageTransport {
  private final String nodeId;
  private final TierDirectory directory;
  private volatile String target;

  NodeTransport(String nodeId, String target, TierDirectory directory) {
    this.nodeId = nodeId;
    this.target = target;
    this.directory = directory;
  }

  String nodeId() {
    return nodeId;
  }

  @Override
  public void put(List<KeyedPage> pages) {
    List<PageKey> keys = pages.stream().map(KeyedPage::key).toList();
    call(
        client -> {
          directory.leases().pin(nodeId, client, keys);
          client.put(pages);
        },
        () -> true);
  }

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    Given given = new Given(consumer);
    call(client -> client.get(keys, given), given::nothing);
  }

  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    Given given = new Given(consumer);
    call(client -> client.getSections(wanted, given), given::nothing);
  }

  @Override
  public void read(List<PageKey> keys, PageConsumer consumer) {
    GivenInPlace given = new GivenInPlace(consumer);
    call(client -> client.read(keys, given), given::nothing);
  }

  @Override
  public void readSections(List<SectionsOf> wanted, PageConsumer consumer) {
    GivenInPlace given = new GivenInPlace(consumer);
    call(client -> client.readSections(wanted, given), given::nothing);
  }

  @Override
  public void readRows(PageLayout layout, List<RowsOf> wanted, PageConsumer consumer) {
    GivenInPlace given = new GivenInPlace(consumer);
    call(client -> client.readRows(layout, wanted, given), given::nothing);
  }

  @Override
  public Optional<NearPages.Attended> attend(
      List<PageKey> keys, NearPages.Queries queries, long[] tokens) {
    List<Optional<NearPages.Attended>> answer = new ArrayList<>();
    call(client -> answer.add(client.attend(keys, queries, tokens)), () -> true);
    return answer.getFirst();
  }

  @Override
  public BitSet contains(List<PageKey> keys) {
    BitSet stored = new BitSet(keys.size());
    call(client -> stored.or(client.contains(keys)), () -> true);
    return stored;
  }

  @Override
  public void hold(List<PageKey> keys) {
    call(client -> directory.leases().hold(nodeId, client, keys), () -> true);
  }

  @Override
  public void letGo(List<PageKey> keys) {
    call(client -> directory.leases().letGo(nodeId, client, keys), () -> true);
  }

  @Override
  public void delete(List<PageKey> keys) {
    call(
        client -> {
          directory.leases().release(nodeId, client, keys);
          client.delete(keys);
        },
        () -> true);
  }

  /** Notes whether anything was given to a consumer. */
  private static final class Given implements ObjIntConsumer<ByteString> {
    private final ObjIntConsumer<ByteString> consumer;
    private boolean any;

    Given(ObjIntConsumer<ByteString> consumer) {
      this.consumer = consumer;
    }

    @Override
    public void accept(ByteString data, int index) {
      any = true;
      consumer.accept(data, index);
    }

    boolean nothing() {
      return !any;
    }
  }

  /** Notes whether anything was given to a consumer. */
  private static final class GivenInPlace implements PageConsumer {
    private final PageConsumer consumer;
    private boolean any;

    GivenInPlace(PageConsumer consumer) {
      this.consumer = consumer;
    }

    @Override
    public void accept(DirectBuffer bytes, int offset, int length, int index) {
      any = true;
      consumer.accept(bytes, offset, length, index);
    }

    boolean nothing() {
      return !any;
    }
  }

  private void call(Consumer<PagesClient> method, BooleanSupplier repeatable) {
    String tried = target;
    try {
      method.accept(directory.client(tried));
    } catch (KvtierException e) {
      if (e.code() != Code.UNAVAILABLE || !repeatable.getAsBoolean()) {
        throw e;
      }
      Optional<String> now = directory.targetOf(nodeId);
      if (now.isEmpty() || now.get().equals(tried)) {
        throw e;
      }
      target = now.get();
      method.accept(directory.client(now.get()));
    }
  }

  /** The directory owns the clients. */
  @Override
  public void close() {}
}
