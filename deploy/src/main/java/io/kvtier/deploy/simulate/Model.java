package io.kvtier.deploy.simulate;

import com.google.protobuf.ByteString;
import io.kvtier.gpuworker.session.Footprint;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.PrefixChain;
import io.kvtier.v1.CurvePoint;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadProfile;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.Session;
import io.kvtier.v1.SharedPrefix;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.UUID;

/**
 * The model that all sessions are of: Llama-3.1-8B's heads in a few layers, each of which attends
 * as widely as the seed says, most of them narrowly. Names pages and makes plans.
 */
final class Model {
  private static final int KV_HEADS = 8;
  private static final int Q_HEADS = 32;
  private static final int HEAD_DIM = 128;
  private static final int[] POINTS = {16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
  private static final int QUERIES = 32;
  private static final int FULL_SHARE = 4;
  private static final int FULL_BYTES_PER_DIM = 4;

  final Geometry geometry;
  final PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, KV_HEADS, HEAD_DIM);
  final PageLayout sinkLayout = new PageLayout(Codec.RAW16, Codec.RAW16, KV_HEADS, HEAD_DIM);
  private final Fingerprint fingerprint;
  private final List<HeadProfile> heads = new ArrayList<>();

  Model(SplittableRandom random, int layers) {
    byte[] name = new byte[16];
    random.nextBytes(name);
    this.geometry =
        Geometry.newBuilder()
            .setLayers(layers)
            .setQHeads(Q_HEADS)
            .setKvHeads(KV_HEADS)
            .setHeadDim(HEAD_DIM)
            .setKvDtype(Dtype.DTYPE_BF16)
            .setModelFingerprint(ByteString.copyFrom(name))
            .build();
    this.fingerprint = Fingerprint.of(geometry.getModelFingerprint());
    for (int head = 0; head < layers * KV_HEADS; head++) {
      // A power law: half of the mass lies within a few dozen tokens, a few hundred in wide heads.
      double half = 20 * Math.exp(random.nextGaussian());
      double slope = 1.2 + random.nextDouble();
      HeadProfile.Builder profile =
          HeadProfile.newBuilder().setLayer(head / KV_HEADS).setKvHead(head % KV_HEADS);
      for (int k : POINTS) {
        float residual = (float) Math.pow(1 + k / half, -slope);
        profile.addCurve(CurvePoint.newBuilder().setK(k).setResidual(residual));
      }
      heads.add(profile.build());
    }
  }

  int layers() {
    return geometry.getLayers();
  }

  PrefixChain chain(Workload.Prompt prompt) {
    return PrefixChain.of(prompt.tenant(), fingerprint, prompt.tokenIds(prompt.promptTokens()));
  }

  /** The page that all sessions with these first tokens share. */
  PageKey sharedKey(PrefixChain chain, int page, int layer) {
    int checksum = checksum(chain, page, layer, Codec.ROT4);
    return PageKey.ofPrefix(chain, page, checksum, fingerprint, layer, layout);
  }

  PageKey sinkKey(PrefixChain chain, int layer) {
    int checksum = checksum(chain, 0, layer, Codec.RAW16);
    return PageKey.ofPrefix(chain, 0, checksum, fingerprint, layer, sinkLayout);
  }

  /** Engines of one kind make the same bytes of the same tokens. */
  private static int checksum(PrefixChain chain, int page, int layer, Codec codec) {
    return (int) Workload.mix(chain.low(page) + 64L * layer + codec.id());
  }

  /**
   * The pages that a message names, in all layers, the sink rows' last; a page that is named by
   * another checksum than the engines make is nobody's.
   */
  List<PageKey> named(SharedPrefix prefix, int pages) {
    PrefixChain chain = PrefixChain.of(prefix.getHashes());
    List<PageKey> keys = new ArrayList<>();
    for (int page = 0; page < pages; page++) {
      for (int layer = 0; layer < layers(); layer++) {
        int checksum = prefix.getChecksums(page * layers() + layer);
        keys.add(PageKey.ofPrefix(chain, page, checksum, fingerprint, layer, layout));
      }
    }
    for (int layer = 0; layer < layers() && pages > 0; layer++) {
      int checksum = prefix.getSinkChecksums(layer);
      keys.add(PageKey.ofPrefix(chain, 0, checksum, fingerprint, layer, sinkLayout));
    }
    return keys;
  }

  PageKey ownKey(String session, int page, int layer) {
    return PageKey.ofSession(UUID.fromString(session), page, fingerprint, layer, layout);
  }

  /** What a session asks for: a share of what its prompt would take unquantized. */
  long deviceBytes(int tokens) {
    long full = (long) tokens * heads.size() * HEAD_DIM * FULL_BYTES_PER_DIM;
    Session session =
        Session.newBuilder()
            .setSessionId(new UUID(0, 0).toString())
            .setGeometry(geometry)
            .setTokensMax(tokens)
            .build();
    return Math.max(full / FULL_SHARE, 2 * Footprint.of(session, tokens).fixedBytes());
  }

  /** What a worker asks the coordinator for once a session's prompt is there. */
  MakePlanRequest planRequest(Session session, int tokens) {
    Footprint footprint = Footprint.of(session, tokens);
    return MakePlanRequest.newBuilder()
        .setSessionId(session.getSessionId())
        .setEpoch(session.getEpoch())
        .setTokens(tokens)
        .setFixedDeviceBytes(footprint.fixedBytes())
        .setPages(footprint.pages())
        .setQueries(QUERIES)
        .addAllHeads(heads)
        .build();
  }
}
