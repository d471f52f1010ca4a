package io.kvtier.gpuworker.trace;

/** Hears of every layer of every step that was served. */
public interface StepListener {
  /** Hears nothing. */
  StepListener NONE =
      new StepListener() {
        @Override
        public long sinceStartNs(long nowNs) {
          return 0;
        }

        @Override
        public void stepped(TraceStep step) {}
      };

  /** What {@link TraceStep#atNs} is of a step that began at {@code nowNs}. */
  long sinceStartNs(long nowNs);

  /** A step has been served; on the step's own thread, so this must not block. */
  void stepped(TraceStep step);
}
