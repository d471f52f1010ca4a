package io.kvtier.page;

import static io.kvtier.KvtierException.requireInRange;

/**
 * What a page's header says of its contents, apart from their layout.
 *
 * @param layer 0..65535
 * @param firstPosition position of the first token, not negative
 * @param tokens 1..64
 */
public record PageIdentity(Fingerprint fingerprint, int layer, int firstPosition, int tokens) {
  public PageIdentity {
    requireInRange("layer", layer, 0, 0xFFFF);
    requireInRange("first position", firstPosition, 0, Integer.MAX_VALUE);
    requireInRange("tokens", tokens, 1, PageLayout.TOKENS);
  }
}
