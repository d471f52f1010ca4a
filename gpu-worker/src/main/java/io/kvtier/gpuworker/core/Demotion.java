package io.kvtier.gpuworker.core;

import io.kvtier.page.Residence;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * What a layer gives up first when its device bytes run out: the codes of a dense head, then one of
 * two sketch planes, or both where one is not enough to choose by, then a sketch. Among heads of
 * the same residence the last goes first: any order would do, and this one needs no state.
 */
public final class Demotion {
  /** A third of the 1 % that plans ask for: an estimate is right on average only. */
  private static final float RESIDUAL_MASS = .003f;

  private static final int TOKENS_MIN = 64;
  private static final int TOKENS_MAX_LEAST = 256;
  private static final int TOKENS_SHARE = 8;

  private Demotion() {}

  /**
   * The policies with one head demoted; empty if there is nothing left to give up.
   *
   * @param tokens of the context: a dense head that becomes sparse may choose an eighth of them
   */
  public static Optional<List<HeadPolicy>> next(List<HeadPolicy> policies, int tokens) {
    for (Residence from : List.of(Residence.DENSE, Residence.TWO_PLANES, Residence.ONE_PLANE)) {
      for (int head = policies.size() - 1; head >= 0; head--) {
        if (policies.get(head).residence() == from) {
          List<HeadPolicy> demoted = new ArrayList<>(policies);
          demoted.set(head, demoted(policies.get(head), tokens));
          return Optional.of(demoted);
        }
      }
    }
    return Optional.empty();
  }

  private static HeadPolicy demoted(HeadPolicy policy, int tokens) {
    return switch (policy.residence()) {
      case DENSE ->
          HeadPolicy.sparse(
                  TOKENS_MIN, Math.max(TOKENS_MAX_LEAST, tokens / TOKENS_SHARE), RESIDUAL_MASS)
              .withOnePlaneErrs(policy.onePlaneErrs());
      case TWO_PLANES ->
          policy.onePlaneErrs() ? HeadPolicy.STREAMED : policy.withResidence(Residence.ONE_PLANE);
      case ONE_PLANE, STREAMED -> HeadPolicy.STREAMED;
    };
  }
}
