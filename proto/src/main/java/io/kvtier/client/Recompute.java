package io.kvtier.client;

import io.kvtier.v1.TokenRange;
import java.util.List;

/** Computes rows again whose pages no tier has any more. */
@FunctionalInterface
public interface Recompute {
  /**
   * Sends all rows of some ranges again, the same to the bit as before.
   *
   * @param missing ranges of whole pages, of one layer each
   * @param repairs takes the rows
   */
  void rows(List<TokenRange> missing, RepairStream repairs);
}
