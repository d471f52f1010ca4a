package io.kvtier.gpuworker.session;

import io.kvtier.client.NearPages.Attended;
import io.kvtier.client.PageTransport;
import io.kvtier.gpuworker.core.FetchOrAttend;
import io.kvtier.gpuworker.core.FetchOrAttend.Course;
import io.kvtier.gpuworker.core.FetchOrAttend.Rule;
import io.kvtier.gpuworker.device.LayerPass;
import io.kvtier.gpuworker.device.LayerShape;
import io.kvtier.page.PageKey;
import io.kvtier.page.Residence;
import io.kvtier.v1.NearUse;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.atomic.AtomicLong;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jspecify.annotations.Nullable;

/**
 * Has a session's tier attend to the pages of streamed heads where that was measured to be sooner
 * than fetching them. Safe for any number of threads.
 */
final class NearAttention {
  private static final Logger LOG = Logger.getLogger(NearAttention.class.getName());

  private final LayerShape shape;
  private final PageTransport tier;
  private final WriteBehind writeBehind;
  private final Executor executor;
  private final long timeoutNs;
  private final FetchOrAttend choice = new FetchOrAttend();
  private final AtomicLong bytesMoved = new AtomicLong();

  /**
   * Whether a partial may differ in its last bits from the sum over fetched pages. Where the clock
   * decides it must not: the same session gives the same output.
   */
  private volatile boolean anyBits;

  /**
   * Nothing has been measured yet.
   *
   * @param executor runs calls to the tier
   * @param timeoutNs longest wait for an answer
   */
  NearAttention(
      LayerShape shape,
      PageTransport tier,
      WriteBehind writeBehind,
      Executor executor,
      long timeoutNs) {
    this.shape = shape;
    this.tier = tier;
    this.writeBehind = writeBehind;
    this.executor = executor;
    this.timeoutNs = timeoutNs;
  }

  /** Does as a plan says from now on. */
  void follow(NearUse use) {
    anyBits = use == NearUse.NEAR_USE_ALWAYS;
    choice.follow(
        switch (use) {
          case NEAR_USE_NEVER -> Rule.NEVER;
          case NEAR_USE_ALWAYS -> Rule.ALWAYS;
          case NEAR_USE_UNSPECIFIED, UNRECOGNIZED -> Rule.MEASURED;
        });
  }

  /** Bytes of partials that have come from the tier so far, and of the requests for them. */
  long bytesMoved() {
    return bytesMoved.get();
  }

  /**
   * Decides for one query, and asks the tier if it is to attend.
   *
   * @param pass has chosen
   * @param query {@code [qHeads][headDim]} from {@code queryAt} on
   * @param keys of all of the layer's pages
   */
  StepNear begin(LayerPass pass, float[] query, int queryAt, List<PageKey> keys) {
    List<Integer> heads = new ArrayList<>();
    for (int head = 0; head < shape.kvHeads(); head++) {
      if (pass.streams(head)) {
        heads.add(head);
      }
    }
    // A tier attends to four bits; where more are stored its partial would be a coarser one.
    boolean same = Residence.finer(shape.layout()) == 0;
    int pages = heads.isEmpty() || !same ? 0 : storedPages(keys);
    if (pages == 0 || (pages < keys.size() && !anyBits)) {
      return StepNear.NOTHING;
    }
    NearPart part = new NearPart(shape, heads, query, queryAt, pages);
    Course course = choice.decide(part.bytes(), part.pairs());
    CompletableFuture<Optional<Attended>> call =
        course == Course.FETCH
            ? null
            : CompletableFuture.supplyAsync(() -> ask(part, keys.subList(0, pages)), executor);
    long patienceNs = Math.min(timeoutNs, choice.patienceNs(part.bytes(), part.pairs()));
    return new StepNear(this, pass, course, part, call, patienceNs);
  }

  /** First pages that the tier has. */
  private int storedPages(List<PageKey> keys) {
    int pages = 0;
    while (pages < keys.size() && writeBehind.pending(keys.get(pages)) == null) {
      pages++;
    }
    return pages;
  }

  private Optional<Attended> ask(NearPart part, List<PageKey> keys) {
    Optional<Attended> answer = tier.attend(keys, part.queries, part.tokens);
    answer.ifPresent(attended -> bytesMoved.addAndGet(attended.bytesMoved()));
    return answer;
  }

  /**
   * The answer, if it is of all pages, and of the bits of one sum where that is asked.
   *
   * @param waitedNs what the step waited for it beside its own work: as a fetch is charged
   */
  @Nullable Attended checked(NearPart part, Optional<Attended> answer, long waitedNs) {
    if (answer.isEmpty() || (answer.get().parts() > 1 && !anyBits)) {
      choice.end();
      return null;
    }
    if (!part.isWhole(answer.get())) {
      refused(
          "the tier attended to %d tokens and lacks %d pages"
              .formatted(answer.get().tokens(), answer.get().misses().size()));
      return null;
    }
    choice.attended(part.pairs(), waitedNs);
    return answer.get();
  }

  void refused(String why) {
    choice.refused();
    LOG.log(Level.FINE, "pages are fetched for a while: {0}", why);
  }

  void fetched(NearPart part, long ns) {
    choice.fetched(part.bytes(), ns);
  }

  void disagrees(NearPart part) {
    choice.end();
    LOG.log(
        Level.WARNING,
        "what the tier attended to of {0} pages is not what they give once fetched: from now on"
            + " this session fetches them",
        part.pages);
  }
}
