package io.kvtier.cachetier.grpc;

import static io.kvtier.KvtierException.requireInRange;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.cachetier.RowSelection;
import io.kvtier.cachetier.SectionSelection;
import io.kvtier.page.PageKey;
import io.kvtier.v1.GetRowsRequest;
import io.kvtier.v1.GetSectionsRequest;
import io.kvtier.v1.RowsOf;
import io.kvtier.v1.SectionsOf;
import java.util.ArrayList;
import java.util.List;

/**
 * Requests of the Pages service as the core's types: every limit that a request can break by itself
 * is checked here.
 */
final class PageRequests {
  /** Most keys or pages in one request. */
  static final int BATCH_MAX = 1024;

  private PageRequests() {}

  /** One page's sections. */
  record Sections(PageKey key, SectionSelection selection) {}

  /** Rows of one page. */
  record Rows(PageKey key, RowSelection selection) {}

  static void requireCount(int keys) {
    requireInRange("number of keys", keys, 1, BATCH_MAX);
  }

  static List<PageKey> keys(List<ByteString> keys) {
    requireCount(keys.size());
    List<PageKey> parsed = new ArrayList<>(keys.size());
    for (int i = 0; i < keys.size(); i++) {
      parsed.add(key("keys", i, keys.get(i)));
    }
    return parsed;
  }

  static List<Sections> sections(GetSectionsRequest request) {
    requireInRange("number of pages", request.getPagesCount(), 1, BATCH_MAX);
    List<Sections> parsed = new ArrayList<>(request.getPagesCount());
    for (int i = 0; i < request.getPagesCount(); i++) {
      SectionsOf page = request.getPages(i);
      PageKey key = key("pages", i, page.getKey());
      try {
        parsed.add(
            new Sections(
                key,
                new SectionSelection(page.getHeadsLow(), page.getHeadsHigh(), page.getSections())));
      } catch (KvtierException e) {
        throw at("pages", i, e);
      }
    }
    return parsed;
  }

  static List<Rows> rows(GetRowsRequest request) {
    requireInRange("number of pages", request.getPagesCount(), 1, BATCH_MAX);
    List<Rows> parsed = new ArrayList<>(request.getPagesCount());
    for (int i = 0; i < request.getPagesCount(); i++) {
      RowsOf page = request.getPages(i);
      PageKey key = key("pages", i, page.getKey());
      try {
        SectionSelection sections =
            new SectionSelection(page.getHeadsLow(), page.getHeadsHigh(), page.getSections());
        parsed.add(
            new Rows(
                key,
                new RowSelection(
                    sections, page.getTokensList().stream().mapToLong(Long::longValue).toArray())));
      } catch (KvtierException e) {
        throw at("pages", i, e);
      }
    }
    return parsed;
  }

  private static PageKey key(String field, int index, ByteString bytes) {
    try {
      return PageKey.of(bytes);
    } catch (KvtierException e) {
      throw at(field, index, e);
    }
  }

  /** The same refusal, with the place in the request that it is about. */
  static KvtierException at(String field, int index, KvtierException e) {
    return new KvtierException(e.code(), field + "[" + index + "]: " + e.getMessage(), e);
  }
}
