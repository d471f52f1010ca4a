package io.kvtier.gpuworker.grpc;

import io.kvtier.gpuworker.device.AttentionDevice;
import io.kvtier.gpuworker.session.SessionTable;
import io.kvtier.gpuworker.session.StepResult;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.FunctionCounter;
import io.micrometer.core.instrument.Gauge;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.util.concurrent.TimeUnit;

/** What a worker measures; each meter's description is its documentation. */
public final class WorkerMeters {
  private final Counter appended;
  private final Counter decoded;
  private final Counter selected;
  private final Counter hits;
  private final Counter late;
  private final Counter fetched;
  private final Counter near;
  private final Counter prefetched;
  private final Counter bytesFetched;
  private final Counter bytesWasted;
  private final Timer compute;
  private final Timer unhidden;

  public WorkerMeters(MeterRegistry meters, AttentionDevice device, SessionTable sessions) {
    appended = counter(meters, "kvtier.worker.prefill.tokens", "layer tokens appended by prefill");
    decoded = counter(meters, "kvtier.worker.decode.tokens", "layer tokens decoded");
    selected =
        counter(
            meters, "kvtier.worker.selected", "(token, KV head) pairs attended from fetched codes");
    hits = counter(meters, "kvtier.worker.sections.hit", "rows found on the device");
    late =
        counter(
            meters,
            "kvtier.worker.sections.late",
            "rows that were still on their way, fetched ahead, when their step came");
    fetched =
        counter(
            meters,
            "kvtier.worker.sections.fetched",
            "rows, and pages of streamed heads, fetched while a step waited");
    near =
        counter(
            meters,
            "kvtier.worker.sections.near",
            "pages of streamed heads that the tier attended to");
    prefetched = counter(meters, "kvtier.worker.sections.prefetched", "rows fetched ahead");
    bytesFetched =
        counter(
            meters,
            "kvtier.worker.fetched.bytes",
            "bytes from the tier, and of the requests for them");
    bytesWasted =
        counter(
            meters,
            "kvtier.worker.wasted.bytes",
            "bytes of rows fetched ahead that their step did not choose");
    compute = timer(meters, "kvtier.worker.step.compute", "scan and attention of one layer's step");
    unhidden =
        timer(meters, "kvtier.worker.step.unhidden", "waiting for fetches in one layer's step");
    FunctionCounter.builder("kvtier.worker.demotions", sessions, SessionTable::demotions)
        .description("times that a head came to hold less than planned, for want of device bytes")
        .register(meters);
    Gauge.builder("kvtier.worker.sessions", sessions, SessionTable::size)
        .description("sessions attached")
        .register(meters);
    Gauge.builder("kvtier.worker.pending.bytes", sessions, SessionTable::pendingBytes)
        .description(
            "bytes of pages that wait to be stored; each session's, and all together, are bounded")
        .register(meters);
    Gauge.builder("kvtier.worker.rate.fetch", sessions, table -> table.rates().fetchRate())
        .description("bytes a microsecond from tiers, as plans are made by; 0: not measured yet")
        .register(meters);
    Gauge.builder("kvtier.worker.rate.attend", sessions, table -> table.rates().attendRate())
        .description("bytes a microsecond attended to, as plans are made by; 0: not measured yet")
        .register(meters);
    Gauge.builder("kvtier.worker.device.used.bytes", device, d -> (double) d.memory().bytesUsed())
        .description("device bytes that sessions hold")
        .register(meters);
    Gauge.builder("kvtier.worker.device.max.bytes", device, d -> (double) d.memory().bytesMax())
        .description("device bytes that sessions may hold")
        .register(meters);
  }

  private static Counter counter(MeterRegistry meters, String name, String description) {
    return Counter.builder(name).description(description).register(meters);
  }

  private static Timer timer(MeterRegistry meters, String name, String description) {
    return Timer.builder(name).description(description).register(meters);
  }

  void appended(int tokens) {
    appended.increment(tokens);
  }

  void stepped(int tokens, StepResult result) {
    decoded.increment(tokens);
    selected.increment(result.selected());
    hits.increment(result.hit());
    late.increment(result.late());
    fetched.increment(result.fetched());
    near.increment(result.near());
    prefetched.increment(result.prefetched());
    bytesFetched.increment((double) result.bytesFetched());
    bytesWasted.increment((double) result.bytesWasted());
    compute.record(result.computeNs(), TimeUnit.NANOSECONDS);
    unhidden.record(result.unhiddenNs(), TimeUnit.NANOSECONDS);
  }
}
