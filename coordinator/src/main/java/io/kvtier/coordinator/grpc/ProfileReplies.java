package io.kvtier.coordinator.grpc;

import static io.kvtier.KvtierException.requireInRange;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.coordinator.lead.Lead;
import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.coordinator.profile.ProfileTable.Entry;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.v1.CurvePoint;
import io.kvtier.v1.HeadProfile;
import io.kvtier.v1.ModelProfile;
import io.kvtier.v1.ProfilesRequest;
import io.kvtier.v1.ProfilesResponse;
import java.util.List;

/** Tells profiles on the wire. */
final class ProfileReplies {
  private ProfileReplies() {}

  static ProfilesResponse of(ProfilesRequest request, Lead lead) {
    int tokens =
        (int)
            requireInRange(
                "tokens",
                Integer.toUnsignedLong(request.getTokens()),
                0,
                GeometryLimits.TOKENS_MAX);
    ProfilesResponse.Builder response = ProfilesResponse.newBuilder();
    long bytes = 0;
    for (Entry entry : lead.call(view -> view.state().profiles().list())) {
      if (request.getModelFingerprint().isEmpty()
          || request.getModelFingerprint().equals(entry.key().geometry().getModelFingerprint())) {
        ModelProfile profile = profile(entry, tokens, lead);
        bytes += profile.getSerializedSize();
        if (bytes > Endpoint.MESSAGE_BYTES_MAX / 2) {
          throw new KvtierException(
              Code.EXHAUSTED,
              "the profiles take more than the %d bytes that a message may; ask for one model's"
                      .formatted(Endpoint.MESSAGE_BYTES_MAX / 2)
                  + " (model_fingerprint), or without curves (tokens 0)");
        }
        response.addProfiles(profile);
      }
    }
    return response.build();
  }

  private static ModelProfile profile(Entry entry, int tokens, Lead lead) {
    ModelProfile.Builder profile =
        ModelProfile.newBuilder()
            .setGeometry(entry.key().geometry())
            .setMode(entry.key().mode())
            .setSessions(entry.sessions())
            .setBytes(entry.bytes());
    if (tokens > 0) {
      List<ResidualCurve> curves =
          lead.call(view -> view.state().profiles().at(entry.key(), tokens)).curves();
      int kvHeads = entry.key().geometry().getKvHeads();
      for (int i = 0; i < curves.size(); i++) {
        profile.addHeads(head(i / kvHeads, i % kvHeads, curves.get(i)));
      }
    }
    return profile.build();
  }

  private static HeadProfile head(int layer, int kvHead, ResidualCurve curve) {
    HeadProfile.Builder head = HeadProfile.newBuilder().setLayer(layer).setKvHead(kvHead);
    for (int point = 0; point < curve.points(); point++) {
      head.addCurve(
          CurvePoint.newBuilder().setK(curve.k(point)).setResidual(curve.residual(point)));
    }
    if (curve.overlap() != ResidualCurve.UNMEASURED) {
      head.setOverlap(curve.overlap());
    }
    if (curve.scoreError() != ResidualCurve.UNMEASURED) {
      head.setScoreError(curve.scoreError());
    }
    return head.build();
  }
}
