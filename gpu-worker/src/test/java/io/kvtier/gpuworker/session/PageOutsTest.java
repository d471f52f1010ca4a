package io.kvtier.gpuworker.session;

import static io.kvtier.page.PageLayout.TOKENS;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.v1.HeadClass;
import io.kvtier.v1.Session;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import org.junit.jupiter.api.Test;

/** Full pages are encoded behind the steps that fill them, and nobody can tell when. */
class PageOutsTest extends SessionFixture {
  /** Tokens whose last one fills a page, beside the window. */
  private static final int FULL = 5 * TOKENS;

  /** Fetches at once, and does all else when it is told to. */
  private static final class Held extends EndlessExecutor {
    final Queue<Runnable> tasks = new ArrayDeque<>();
    boolean holds = true;

    @Override
    public void execute(Runnable task) {
      if (holds && !(task instanceof CompletableFuture.AsynchronousCompletionTask)) {
        tasks.add(task);
      } else {
        task.run();
      }
    }

    void runAll() {
      for (Runnable task = tasks.poll(); task != null; task = tasks.poll()) {
        task.run();
      }
    }
  }

  private final Held held = new Held();
  private final float[] keys = gaussian(7 * TOKENS * KV_ROW);
  private final float[] values = gaussian(keys.length);

  private WorkerSession filled(ExecutorService executor, int tokens, HeadClass headClass) {
    Session info = info(headClass, 0);
    WorkerSession session = open(info, executor);
    for (int layer = 0; layer < 2; layer++) {
      var _ = session.append(layer, 0, tokens, rows(keys, 0, tokens), rows(values, 0, tokens));
    }
    var _ = session.finish(tokens, true, (i, t, c, f, p) -> i.getPlan());
    return session;
  }

  private static float[] rows(float[] of, int from, int count) {
    return java.util.Arrays.copyOfRange(of, from * KV_ROW, (from + count) * KV_ROW);
  }

  private StepResult decode(WorkerSession session, int layer, int position) {
    float[] query = new float[Q_ROW];
    for (int i = 0; i < Q_ROW; i++) {
      query[i] = 2 * keys[position * KV_ROW % 64 + i];
    }
    return session.step(
        layer, position, 1, query, rows(keys, position, 1), rows(values, position, 1), NO_HINT);
  }

  private static long pages(WorkerSession session) {
    return session.bytes(0).getTier() / session.shape().layout().pageLength();
  }

  @Test
  void aStepDoesNotWaitForThePageThatItFills() {
    WorkerSession session = filled(held, FULL - 1, HeadClass.HEAD_CLASS_SPARSE);
    held.runAll();
    long pages = pages(session);
    long deviceBytes = session.deviceBytes();
    for (int layer = 0; layer < 2; layer++) {
      var _ = decode(session, layer, FULL - 1);
    }
    assertThat(pages(session)).isEqualTo(pages);
    long two = 2L * session.shape().layout().pageLength();
    assertThat(session.pendingBytes()).as("both wait to be encoded").isEqualTo(two);
    assertThat(session.deviceBytes()).as("room for it is taken").isGreaterThan(deviceBytes);
    assertThat(held.tasks).as("both layers' pages in one task").hasSize(1);
    held.tasks.remove().run();
    assertThat(pages(session)).isEqualTo(pages + 2);
    assertThat(session.pendingBytes()).as("both wait to be stored").isEqualTo(two);
    held.runAll();
    assertThat(session.pendingBytes()).isZero();
    session.close();
  }

  @Test
  void closingFreesThePageThatWasLeft() {
    WorkerSession session = filled(held, FULL - 1, HeadClass.HEAD_CLASS_SPARSE);
    held.runAll();
    var _ = decode(session, 0, FULL - 1);
    session.close();
    held.runAll();
    assertThat(tier.pages).isEmpty();
  }

  @Test
  void theBackgroundEncodesAndStoresItWithoutAnotherStep() {
    WorkerSession session = filled(held, FULL - 1, HeadClass.HEAD_CLASS_SPARSE);
    held.runAll();
    for (int layer = 0; layer < 2; layer++) {
      var _ = decode(session, layer, FULL - 1);
    }
    held.runAll();
    for (int layer = 0; layer < 2; layer++) {
      assertThat(session.durableTokens(layer)).isEqualTo(4 * TOKENS);
    }
    session.close();
  }

  @Test
  void outputsDoNotDependOnWhenAPageIsEncoded() {
    for (HeadClass headClass :
        List.of(
            HeadClass.HEAD_CLASS_SPARSE,
            HeadClass.HEAD_CLASS_DENSE,
            HeadClass.HEAD_CLASS_STREAMED)) {
      List<float[]> atOnce = decodeAll(background, () -> {}, headClass);
      List<float[]> late = decodeAll(held, held::runAll, headClass);
      assertThat(late).hasSameSizeAs(atOnce);
      for (int i = 0; i < late.size(); i++) {
        assertThat(late.get(i)).as("step %d", i).isEqualTo(atOnce.get(i));
      }
    }
  }

  /** Decodes across two pages; the background runs at the end alone. */
  private List<float[]> decodeAll(ExecutorService executor, Runnable atEnd, HeadClass headClass) {
    List<float[]> outputs = new ArrayList<>();
    WorkerSession session = filled(executor, FULL - 10, headClass);
    for (int position = FULL - 10; position < FULL + 80; position++) {
      for (int layer = 0; layer < 2; layer++) {
        outputs.add(decode(session, layer, position).output());
      }
    }
    atEnd.run();
    session.close();
    return outputs;
  }

  @Test
  void aForkHasThePageThatWasLeft() {
    WorkerSession session = filled(held, FULL - 1, HeadClass.HEAD_CLASS_SPARSE);
    held.runAll();
    for (int layer = 0; layer < 2; layer++) {
      var _ = decode(session, layer, FULL - 1);
    }
    Session child = session.info().toBuilder().setSessionId(UUID.randomUUID().toString()).build();
    held.holds = false;
    WorkerSession fork = session.fork(child);
    assertThat(fork.sharedTokens()).isEqualTo(4 * TOKENS);
    fork.close();
    session.close();
  }
}
