package io.kvtier.deploy.demo;

import com.fasterxml.jackson.annotation.JsonProperty;
import org.jspecify.annotations.Nullable;

/**
 * What the demo found for one task and length.
 *
 * @param cases questions asked
 * @param accuracyFull share answered rightly with full KV, 0..1; null: the cases have no right
 *     answer
 * @param accuracyKvtier the same through kvtier
 * @param tokenAgreement share of generated tokens that are the same both ways, 0..1
 * @param errorMean mean over steps, layers and q heads of ‖output - exact‖ / ‖exact‖
 * @param errorP99 its 99th percentile
 * @param deviceBytes most bytes a session held on the device
 * @param deviceBytesFull what the full KV cache takes there at 16 bits a value
 * @param tierBytes bytes of a session's pages in the tier
 * @param msPerTokenFull milliseconds a decoded token, full KV, whole model
 * @param msPerTokenKvtier the same through kvtier
 * @param sectionsHit rows, (token, KV head) pairs, found on the device
 * @param sectionsFetched rows, and pages of streamed heads, fetched while a step waited
 * @param sectionsPrefetched rows fetched ahead
 * @param bytesFetched bytes that came from the tier, and of the requests for them
 * @param unhiddenMsPerToken milliseconds a token that waited for fetches
 */
public record DemoRow(
    String task,
    int length,
    int cases,
    @JsonProperty("accuracy_full") @Nullable Double accuracyFull,
    @JsonProperty("accuracy_kvtier") @Nullable Double accuracyKvtier,
    @JsonProperty("token_agreement") double tokenAgreement,
    @JsonProperty("error_mean") double errorMean,
    @JsonProperty("error_p99") double errorP99,
    @JsonProperty("device_bytes") long deviceBytes,
    @JsonProperty("device_bytes_full") long deviceBytesFull,
    @JsonProperty("tier_bytes") long tierBytes,
    @JsonProperty("ms_per_token_full") double msPerTokenFull,
    @JsonProperty("ms_per_token_kvtier") double msPerTokenKvtier,
    @JsonProperty("rows_hit") long sectionsHit,
    @JsonProperty("rows_fetched") long sectionsFetched,
    @JsonProperty("rows_prefetched") long sectionsPrefetched,
    @JsonProperty("bytes_fetched") long bytesFetched,
    @JsonProperty("unhidden_ms_per_token") double unhiddenMsPerToken) {}
