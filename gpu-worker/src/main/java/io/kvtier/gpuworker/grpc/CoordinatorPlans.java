package io.kvtier.gpuworker.grpc;

import io.kvtier.client.Coordinators;
import io.kvtier.gpuworker.core.MeasuredRates;
import io.kvtier.gpuworker.core.ResidualCurve;
import io.kvtier.gpuworker.session.PlanMaker;
import io.kvtier.v1.ClusterGrpc;
import io.kvtier.v1.CurvePoint;
import io.kvtier.v1.HeadProfile;
import io.kvtier.v1.MakePlanRequest;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.time.Duration;
import java.util.stream.Stream;

/** Plans made by the coordinator. */
public final class CoordinatorPlans implements PlanMaker, AutoCloseable {
  private final Coordinators coordinators;
  private final Duration deadline;
  private final MeasuredRates rates;

  /**
   * Asks the coordinator at {@code targets}, host:port, or the one of several that leads.
   *
   * @param rates the worker's, by which plans are made
   */
  public CoordinatorPlans(String targets, Duration deadline, MeasuredRates rates) {
    this.rates = rates;
    this.coordinators = Coordinators.at(targets);
    this.deadline = deadline;
  }

  @Override
  public Plan makePlan(
      Session session, int tokens, ResidualCurve[][] curves, long fixedDeviceBytes, int pages) {
    MakePlanRequest.Builder request =
        MakePlanRequest.newBuilder()
            .setSessionId(session.getSessionId())
            .setEpoch(session.getEpoch())
            .setTokens(tokens)
            .setFixedDeviceBytes(fixedDeviceBytes)
            .setPages(pages)
            .setDeviceBytesThere(session.getDeviceBytesMax())
            .setFetchRate(rates.fetchRate())
            .setAttendRate(rates.attendRate());
    request.setQueries(queries(session, curves));
    for (int layer = 0; layer < curves.length; layer++) {
      for (int head = 0; head < curves[layer].length; head++) {
        request.addHeads(profile(layer, head, curves[layer][head]));
      }
    }
    return coordinators.call(
        ClusterGrpc::newBlockingStub, deadline, stub -> stub.makePlan(request.build()));
  }

  /** Queries of the layer that has fewest: each was added once a q head of the group. */
  private static int queries(Session session, ResidualCurve[][] curves) {
    int group = session.getGeometry().getQHeads() / session.getGeometry().getKvHeads();
    return Stream.of(curves).flatMap(Stream::of).mapToInt(ResidualCurve::samples).min().orElse(0)
        / group;
  }

  private static HeadProfile profile(int layer, int head, ResidualCurve curve) {
    HeadProfile.Builder profile = HeadProfile.newBuilder().setLayer(layer).setKvHead(head);
    for (int point = 0; point < curve.points(); point++) {
      profile.addCurve(
          CurvePoint.newBuilder().setK(curve.k(point)).setResidual(curve.residual(point)));
    }
    if (curve.overlap() != ResidualCurve.UNMEASURED) {
      profile.setOverlap(curve.overlap());
    }
    if (curve.scoreError() != ResidualCurve.UNMEASURED) {
      profile.setScoreError(curve.scoreError());
    }
    return profile.build();
  }

  @Override
  public void close() {
    coordinators.close();
  }
}
