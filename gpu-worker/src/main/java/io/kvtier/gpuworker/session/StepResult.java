package io.kvtier.gpuworker.session;

/**
 * What one layer of one step gave.
 *
 * @param output {@code [tokens][qHeads][headDim]}
 * @param lse {@code [tokens][qHeads]}, natural log-sum-exp
 * @param selected (token, KV head) pairs attended from fetched codes
 * @param candidates tokens that selected ones were chosen among, over all KV heads
 * @param hit rows needed and found on the device, or on their way; a row is a (token, KV head) pair
 * @param late of the hits, those still on their way when the step needed them
 * @param fetched rows, and (page, KV head) pairs of streamed heads, needed and fetched while the
 *     step waited
 * @param near (page, KV head) pairs of streamed heads that the tier attended to
 * @param prefetched rows fetched ahead for the layer since its last step
 * @param bytesWasted bytes of rows that came ahead for the layer since its last step and that the
 *     step did not choose
 * @param bytesFetched bytes from the tier, prefetched ones included, and of the requests to it
 * @param computeNs nanoseconds of scan and attention
 * @param chooseNs of these, nanoseconds of scan and choice
 * @param unhiddenNs nanoseconds of waiting for fetches
 * @param deviceBytes most bytes the session held on the device during the step
 */
public record StepResult(
    float[] output,
    float[] lse,
    int selected,
    int candidates,
    int hit,
    int late,
    int fetched,
    int near,
    int prefetched,
    long bytesWasted,
    long bytesFetched,
    long computeNs,
    long chooseNs,
    long unhiddenNs,
    long deviceBytes) {}
