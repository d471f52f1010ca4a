package io.kvtier.gpuworker.grpc;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.NearPages;
import io.kvtier.client.PageConsumer;
import io.kvtier.client.PageTransport;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.util.BitSet;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.ObjIntConsumer;

/**
 * The pages of one session at the one tier node that has them all. A node that has left the cluster
 * has taken them along: then another is the session's home, which has none of them yet, and what is
 * read there is told as lost, to be sent again. Safe for any number of threads.
 */
final class HomeTransport implements PageTransport {
  private final String placement;
  private final TierDirectory directory;
  private volatile NodeTransport home;

  HomeTransport(String placement, NodeTransport home, TierDirectory directory) {
    this.placement = placement;
    this.home = home;
    this.directory = directory;
  }

  @Override
  public void put(List<KeyedPage> pages) {
    call(node -> node.put(pages));
  }

  @Override
  public void get(List<PageKey> keys, ObjIntConsumer<ByteString> consumer) {
    call(node -> node.get(keys, consumer));
  }

  @Override
  public void getSections(List<SectionsOf> wanted, ObjIntConsumer<ByteString> consumer) {
    call(node -> node.getSections(wanted, consumer));
  }

  @Override
  public void read(List<PageKey> keys, PageConsumer consumer) {
    call(node -> node.read(keys, consumer));
  }

  @Override
  public void readSections(List<SectionsOf> wanted, PageConsumer consumer) {
    call(node -> node.readSections(wanted, consumer));
  }

  @Override
  public void readRows(PageLayout layout, List<RowsOf> wanted, PageConsumer consumer) {
    call(node -> node.readRows(layout, wanted, consumer));
  }

  @Override
  public Optional<NearPages.Attended> attend(
      List<PageKey> keys, NearPages.Queries queries, long[] tokens) {
    return ask(node -> node.attend(keys, queries, tokens));
  }

  @Override
  public BitSet contains(List<PageKey> keys) {
    return ask(node -> node.contains(keys));
  }

  @Override
  public void hold(List<PageKey> keys) {
    call(node -> node.hold(keys));
  }

  @Override
  public void letGo(List<PageKey> keys) {
    call(node -> node.letGo(keys));
  }

  @Override
  public void delete(List<PageKey> keys) {
    call(node -> node.delete(keys));
  }

  private void call(Consumer<NodeTransport> method) {
    var _ =
        ask(node -> {
          method.accept(node);
          return true;
        });
  }

  /**
   * A call that the home refuses because it has left is made at the next: what it has given by then
   * is given again, or refused as lost, which the caller must stand as it stands any refusal.
   */
  private <T> T ask(Function<NodeTransport, T> method) {
    NodeTransport now = home;
    try {
      return method.apply(now);
    } catch (KvtierException e) {
      if (e.code() != Code.UNAVAILABLE) {
        throw e;
      }
      Optional<NodeTransport> next = directory.homeInsteadOf(now, placement);
      if (next.isEmpty()) {
        throw e;
      }
      home = next.get();
      return method.apply(next.get());
    }
  }

  /** The directory owns the clients. */
  @Override
  public void close() {}
}
