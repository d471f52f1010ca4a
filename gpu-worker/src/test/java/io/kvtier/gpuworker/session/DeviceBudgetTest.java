package io.kvtier.gpuworker.session;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.page.Residence;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.Plan;
import io.kvtier.v1.Session;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

/** Plans given by hand to sessions whose device bytes are too few for them. */
class DeviceBudgetTest extends SessionFixture {
  private static final int TOKENS = 4900;

  /** A share of the full KV at 16 bits. */
  private static long share(int of) {
    return (long) TOKENS * 2 * KV_ROW * 2 * Short.BYTES / of;
  }

  private WorkerSession prefilled(Session info) {
    WorkerSession session = open(info);
    for (int layer = 0; layer < 2; layer++) {
      float[] rows = gaussian(TOKENS * KV_ROW);
      assertThat(session.append(layer, 0, TOKENS, rows, rows)).isEqualTo(TOKENS);
    }
    return session;
  }

  /** What the device holds is looked at all the time that a plan is adopted. */
  @Test
  void theBoundHoldsWhileAPlanIsAdopted() throws Exception {
    for (HeadClass headClass :
        new HeadClass[] {HeadClass.HEAD_CLASS_SPARSE, HeadClass.HEAD_CLASS_DENSE}) {
      long max = share(8) * 9 / 10;
      // Two planes are there before the plan comes, and one is left.
      WorkerSession session = prefilled(info(headClass, max));
      AtomicBoolean done = new AtomicBoolean();
      AtomicLong most = new AtomicLong();
      tier.onRead = () -> most.accumulateAndGet(device.memory().bytesUsed(), Math::max);
      Thread watch =
          Thread.ofPlatform()
              .start(() -> {
                while (!done.get()) {
                  most.accumulateAndGet(device.memory().bytesUsed(), Math::max);
                }
              });
      Plan effective = session.finish(TOKENS, (i, t, c, f, d) -> i.getPlan());
      done.set(true);
      watch.join();
      assertThat(most.get()).isBetween(1L, max);
      assertThat(session.deviceBytes()).isLessThanOrEqualTo(max);
      assertThat(step(session, TOKENS, gaussian(Q_ROW)).output()).hasSize(Q_ROW);
      requireTold(session, effective, max);
      session.close();
    }
  }

  private static void requireTold(WorkerSession session, Plan effective, long max) {
    int pages = session.shape().pages(TOKENS);
    int demoted = 0;
    for (HeadPlan head : effective.getHeadsList()) {
      Residence residence =
          session.planning().policies().get(head.getLayer()).get(head.getKvHead()).residence();
      assertThat(head.getDeviceBytes())
          .isEqualTo((long) pages * residence.deviceBytes(session.shape().layout()));
      assertThat(head.getHeadClass())
          .isEqualTo(
              switch (residence) {
                case DENSE -> HeadClass.HEAD_CLASS_DENSE;
                case TWO_PLANES, ONE_PLANE -> HeadClass.HEAD_CLASS_SPARSE;
                case STREAMED -> HeadClass.HEAD_CLASS_STREAMED;
              });
      if (head.getReason().startsWith("demoted: ")) {
        demoted++;
      }
    }
    assertThat(demoted).isPositive();
    assertThat(effective.getDeviceBytes()).isBetween(1L, max);
    // It is a plan that could be given by hand.
    assertThat(PlanSwitch.policiesOf(effective, session.info())).hasSize(2);
  }

  @Test
  void aPlanThatFitsIsToldAsItIs() {
    WorkerSession session = filled(info(HeadClass.HEAD_CLASS_DENSE, share(1)), 1000);
    session.close();
  }
}
