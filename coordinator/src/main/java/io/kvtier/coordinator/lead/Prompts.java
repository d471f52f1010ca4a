package io.kvtier.coordinator.lead;

import com.google.common.primitives.Ints;
import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.prefix.StoredPrefix;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageLayout;
import io.kvtier.page.PrefixChain;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.OpenRequest;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.SessionRecord;
import io.kvtier.v1.SharedPrefix;
import java.util.Arrays;
import java.util.function.IntUnaryOperator;

/** What is stored of prompts. Thread-safe. */
public final class Prompts {
  private final PrefixSource tiers;

  public Prompts(PrefixSource tiers) {
    this.tiers = tiers;
  }

  /**
   * The chain of a tenant's prompt.
   *
   * @param tokenIds tells each of the ids by its index: as a list every one would be an object
   */
  public static PrefixChain chain(
      String tenant, Geometry geometry, int tokens, IntUnaryOperator tokenIds) {
    int[] ids = new int[tokens];
    Arrays.setAll(ids, tokenIds);
    return PrefixChain.of(tenant, Fingerprint.of(geometry.getModelFingerprint()), ids);
  }

  /** First tokens of a chain whose pages are stored. */
  public int storedTokens(PrefixChain chain, Geometry geometry) {
    return tiers.find(chain, geometry.getLayers(), GeometryLimits.codec(geometry)).pages()
        * PageLayout.TOKENS;
  }

  /** What a worker needs to find a prompt's pages, and to name those that are yet to be stored. */
  SharedPrefix prefixOf(OpenRequest request, Caller caller) {
    if (request.getTokenIdsCount() == 0 || request.getMode() == PlanMode.PLAN_MODE_TAILORKV) {
      return SharedPrefix.getDefaultInstance();
    }
    PrefixChain chain =
        chain(
            caller.tenant(),
            request.getGeometry(),
            request.getTokenIdsCount(),
            request::getTokenIds);
    return prefix(chain, chain.toByteString(), request.getTokenIdsCount(), request.getGeometry());
  }

  /**
   * The same of a session that is to be read back from its pages.
   *
   * @throws KvtierException UNAVAILABLE as long as it is not known of all tiers what they hold: the
   *     session would come back with fewer tokens than are stored
   */
  SharedPrefix prefixOf(SessionRecord record) {
    ByteString hashes = record.getPrefixHashes();
    if (hashes.isEmpty()) {
      return SharedPrefix.getDefaultInstance();
    }
    if (!tiers.whole()) {
      throw new KvtierException(
          Code.UNAVAILABLE,
          "not all cache tiers have told yet what they hold, so it is not known what is stored of"
              + " session %s; try again".formatted(record.getSession().getSessionId()));
    }
    return prefix(
        PrefixChain.of(hashes),
        hashes,
        record.getPromptTokens(),
        record.getSession().getGeometry());
  }

  private SharedPrefix prefix(
      PrefixChain chain, ByteString hashes, int promptTokens, Geometry geometry) {
    StoredPrefix stored = tiers.find(chain, geometry.getLayers(), GeometryLimits.codec(geometry));
    return SharedPrefix.newBuilder()
        .setHashes(hashes)
        .setPromptTokens(promptTokens)
        .addAllChecksums(Ints.asList(stored.checksums()))
        .addAllSinkChecksums(Ints.asList(stored.sinkChecksums()))
        .build();
  }
}
