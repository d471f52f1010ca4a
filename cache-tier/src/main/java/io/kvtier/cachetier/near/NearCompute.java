package io.kvtier.cachetier.near;

import static io.kvtier.KvtierException.invalid;

import io.kvtier.attention.HeadOffsets;
import io.kvtier.attention.Kernels;
import io.kvtier.attention.PageGroupAttention;
import io.kvtier.cachetier.PageService;
import io.kvtier.cachetier.Read;
import io.kvtier.cachetier.Read.Hit;
import io.kvtier.cachetier.Read.Miss;
import io.kvtier.cachetier.SectionSelection;
import io.kvtier.cachetier.near.NearResult.PageMiss;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.BooleanSupplier;
import org.jspecify.annotations.Nullable;

/**
 * One request's work: page after page in the order asked, each verified, copied and computed on;
 * what is missing is left out and told. Deterministic: one thread, one order. Not to be used twice.
 */
final class NearCompute {
  /** What a page is, once its sections are in the worker's memory. */
  private record Copied(PageLayout layout, int tokens) {}

  private final NearRequest request;
  private final PageService pages;
  private final PageMemory memory;
  private final PageGroupAttention[] heads;
  private final HeadOffsets[] offsets;
  private final List<PageMiss> misses = new ArrayList<>();
  private @Nullable PageLayout layout;
  private long tokens;

  NearCompute(NearRequest request, PageService pages, PageMemory memory, Kernels kernels) {
    this.request = request;
    this.pages = pages;
    this.memory = memory;
    this.heads = new PageGroupAttention[request.kvHeads().length];
    this.offsets = new HeadOffsets[heads.length];
    boolean sketched = request.planes() == 1 || request.planes() == 2;
    for (int i = 0; i < heads.length; i++) {
      heads[i] = new PageGroupAttention(request.group(), request.headDim(), kernels);
      heads[i].begin(request.queries(), i * request.group() * request.headDim(), sketched);
    }
  }

  /**
   * Computes.
   *
   * @param unwanted asked before each page; true: nobody waits for the result any more
   * @return null if it became unwanted
   */
  @Nullable NearResult run(BooleanSupplier unwanted) {
    int stride = request.keys().size() * PageLayout.TOKENS;
    float[] scores = new float[request.planes() == 0 ? 0 : heads.length * request.group() * stride];
    SectionSelection selection = request.selection();
    int served = 0;
    for (int i = 0; i < request.keys().size(); i++) {
      if (unwanted.getAsBoolean()) {
        return null;
      }
      if (!request.skips(i)) {
        switch (read(i, selection)) {
          case Miss<Copied>(Read.MissReason reason) -> misses.add(new PageMiss(i, reason));
          case Hit<Copied>(Copied copied) -> {
            compute(copied, request.wanted(i, copied.tokens()), scores, served, stride);
            served++;
          }
        }
      }
    }
    return request.planes() == 0 ? partial() : scored(scores, served, stride);
  }

  private Read<Copied> read(int index, SectionSelection selection) {
    try {
      return pages.readSections(
          request.keys().get(index),
          selection,
          (page, offset, length) -> {
            PageLayout found = PageLayout.of(page, offset);
            requireGeometry(found);
            memory.copy(page, offset, found, request.kvHeads(), selection.sections());
            return new Copied(found, Pages.identity(page, offset).tokens());
          });
    } catch (io.kvtier.KvtierException e) {
      throw new io.kvtier.KvtierException(e.code(), "keys[" + index + "]: " + e.getMessage(), e);
    }
  }

  /** All pages are laid out alike, as the queries say; only rot4 has all the sections asked for. */
  private void requireGeometry(PageLayout found) {
    if (found.keyCodec() != io.kvtier.page.Codec.ROT4
        || found.valueCodec() != io.kvtier.page.Codec.ROT4) {
      throw invalid(
          "the page has codecs %s, %s; near the pages only rot4 is computed on",
          found.keyCodec(), found.valueCodec());
    }
    if (found.headDim() != request.headDim()) {
      throw invalid(
          "queries have head_dim %d; the page has %d", request.headDim(), found.headDim());
    }
  }

  private void compute(Copied page, long wanted, float[] scores, int served, int stride) {
    locate(page.layout());
    tokens += Long.bitCount(wanted);
    for (int i = 0; i < heads.length; i++) {
      if (request.planes() == 0) {
        heads[i].attend(offsets[i], memory.address(), wanted);
      } else {
        int at = i * request.group() * stride + served * PageLayout.TOKENS;
        heads[i].score(offsets[i], memory.address(), request.planes(), wanted, scores, at, stride);
      }
    }
  }

  private void locate(PageLayout found) {
    PageLayout before = layout;
    if (before == null || before.kvHeads() != found.kvHeads()) {
      layout = found;
      Arrays.setAll(offsets, i -> HeadOffsets.inPage(found, request.kvHeads()[i]));
    }
  }

  private NearResult partial() {
    int perHead = request.group() * request.headDim();
    float[] outputs = new float[heads.length * perHead];
    float[] lse = new float[heads.length * request.group()];
    for (int i = 0; i < heads.length; i++) {
      heads[i].finish(outputs, i * perHead, lse, i * request.group());
    }
    return new NearResult(outputs, lse, tokens, misses);
  }

  /** Moves the rows together where pages were missing. */
  private NearResult scored(float[] scores, int served, int stride) {
    int row = served * PageLayout.TOKENS;
    if (row == stride) {
      return new NearResult(scores, new float[0], tokens, misses);
    }
    float[] dense = new float[heads.length * request.group() * row];
    for (int q = 0; q < heads.length * request.group(); q++) {
      System.arraycopy(scores, q * stride, dense, q * row, row);
    }
    return new NearResult(dense, new float[0], tokens, misses);
  }
}
