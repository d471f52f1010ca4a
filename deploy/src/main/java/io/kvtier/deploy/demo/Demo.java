package io.kvtier.deploy.demo;

import io.kvtier.client.DecodeStream;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.deploy.cases.EvalCase;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.FullKvCache;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.deploy.engine.Prefill;
import io.kvtier.deploy.engine.Tokenizer;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * Decodes each case's answer twice, with full KV in process and through a kvtier session, and tells
 * how they compare. A context is prefilled once; its questions are asked of forks. Uses the public
 * client alone.
 */
public final class Demo {
  private final DemoConfig config;
  private final Decoder decoder;
  private final LlamaConfig model;
  private final KvtierClient client;
  private final Progress progress;

  /** Hears of the demo's progress, on the caller's thread. */
  public interface Progress {
    /** {@code done} of {@code total} units of work are done; {@code what} is under way. */
    void at(long done, long total, String what);
  }

  /** A demo on a loaded model and a connected client; closes neither. */
  public Demo(DemoConfig config, Decoder decoder, KvtierClient client, Progress progress) {
    this.config = config;
    this.decoder = decoder;
    this.model = decoder.model().config();
    this.client = client;
    this.progress = progress;
  }

  /** Runs all cases; one row a task and length. */
  public List<DemoRow> run(Optional<Tokenizer> tokenizer) throws IOException {
    List<CaseSource.Group> groups = CaseSource.groups(config, model, tokenizer);
    Work work = new Work(progress, groups);
    List<DemoRow> rows = new ArrayList<>();
    for (CaseSource.Group group : groups) {
      Tally tally = new Tally(group.task(), group.length());
      for (EvalCase context : group.contexts()) {
        runContext(context, tally, work);
      }
      rows.add(tally.row(!group.task().equals(CaseSource.RANDOM)));
    }
    return rows;
  }

  private void runContext(EvalCase context, Tally tally, Work work) {
    String what = context.task() + " at " + context.length();
    int[] ids = context.contextIds();
    FullKvCache cache = new FullKvCache(model);
    Prefill prefill =
        decoder.prefill(
            cache,
            ids,
            PromptStream.QUERY_WINDOW,
            (done, total) -> work.prefilling(what, done, total));
    try (KvSession session = client.open(options(context))) {
      var _ = PromptStream.send(session, cache, prefill);
      work.prefilled(what, ids.length);
      for (EvalCase.Query query : context.queries()) {
        ask(session, cache, ids.length, query, tally);
        work.asked(what, ids.length);
      }
    }
  }

  private SessionOptions options(EvalCase context) {
    int tokensMax = context.contextIds().length;
    for (EvalCase.Query query : context.queries()) {
      tokensMax =
          Math.max(
              tokensMax,
              context.contextIds().length + query.queryIds().length + query.answerIds().length);
    }
    long full = PromptStream.fullBytes(model, context.contextIds().length);
    return new SessionOptions(
        PromptStream.geometry(decoder.model(), config.codeBits()),
        tokensMax,
        config.budget().isPresent() ? (long) (full * config.budget().getAsDouble()) : 0,
        Optional.empty(),
        config.mode());
  }

  private void ask(
      KvSession session, FullKvCache cache, int position, EvalCase.Query query, Tally tally) {
    int answerTokens = query.answerIds().length;
    long startNs = System.nanoTime();
    int[] full = decoder.greedy(cache, position, query.queryIds(), answerTokens);
    long fullNs = System.nanoTime() - startNs;
    cache.truncate(position);
    try (KvSession fork = session.fork();
        DecodeStream stream = fork.decode()) {
      KvtierBackend backend = new KvtierBackend(stream, model);
      startNs = System.nanoTime();
      int[] tiered = decoder.greedy(backend, position, query.queryIds(), answerTokens);
      long tieredNs = System.nanoTime() - startNs;
      backend.compare(cache, tally);
      tally.addCase(query.answerIds(), full, tiered);
      tally.addTime(query.queryIds().length + answerTokens - 1, fullNs, tieredNs);
    }
    cache.truncate(position);
  }

  /** Progress in units of tokens prefilled, a question counting as a part of its context. */
  private static final class Work {
    private static final int QUESTION_SHARE = 20;

    private final Progress progress;
    private final long total;
    private long done;

    Work(Progress progress, List<CaseSource.Group> groups) {
      this.progress = progress;
      long units = 0;
      for (CaseSource.Group group : groups) {
        for (EvalCase context : group.contexts()) {
          long tokens = context.contextIds().length;
          units += tokens + context.queries().size() * (tokens / QUESTION_SHARE);
        }
      }
      this.total = units;
    }

    void prefilling(String what, int tokensDone, int tokens) {
      progress.at(done + tokensDone, total, what + " prefill of " + tokens);
    }

    void prefilled(String what, int tokens) {
      done += tokens;
      progress.at(done, total, what);
    }

    void asked(String what, int tokens) {
      done += tokens / QUESTION_SHARE;
      progress.at(done, total, what + " questions");
    }
  }
}
