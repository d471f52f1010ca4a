package io.kvtier.integration;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.client.KvSession;
import io.kvtier.client.KvtierClient;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.client.PagesClient;
import io.kvtier.client.SessionOptions;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.Pages;
import io.kvtier.rpc.Closing;
import io.kvtier.v1.LoadResponse;
import io.kvtier.v1.Session;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Sessions on a tier that others fill up, and a worker that is killed. */
@Timeout(value = 120, unit = TimeUnit.SECONDS)
class LeasesIT {
  private static final int TOKENS = 2000;

  /** Tokens that are in pages once the prefill is finished; the window holds the others. */
  private static final int PAGED = 30 * 64;

  private static final Duration TIMEOUT = Duration.ofSeconds(20);
  private static final Duration LEASE_TTL = Duration.ofSeconds(3);

  /** The tier looks for ended leases four times in a second; the rest is for a busy machine. */
  private static final Duration GRACE = Duration.ofSeconds(7);

  private static final PageLayout LARGE = new PageLayout(Codec.RAW16, Codec.RAW16, 8, 128);
  private static final Fingerprint MODEL = new Fingerprint(3, 4);

  private final Closing started = new Closing();
  private int strangers;

  @SuppressWarnings("NullAway.Init") // Started before each test.
  private ServiceProcess tier;

  @SuppressWarnings("NullAway.Init")
  private ServiceProcess worker;

  @SuppressWarnings("NullAway.Init")
  private KvtierClient client;

  @BeforeEach
  void start() throws Exception {
    String coordinator = started.add(new ServiceProcess("coordinator")).target;
    tier =
        started.add(
            new ServiceProcess("cache-tier", "--coordinator=" + coordinator, "--tier-bytes=16m"));
    worker =
        started.add(
            new ServiceProcess(
                "gpu-worker",
                "--no-rehearsal",
                "--coordinator=" + coordinator,
                "--device-bytes=64m",
                "--lease-ttl=" + LEASE_TTL.toSeconds() + "s"));
    client = started.add(KvtierClient.connect(coordinator, TIMEOUT));
  }

  @AfterEach
  void endAll() {
    started.close();
  }

  private KvSession prefilled(int seed) {
    KvSession session =
        client.open(new SessionOptions(Synthetic.geometry(), TOKENS + 200, 0, Optional.empty()));
    new Synthetic(seed, TOKENS + 200).prefill(session, TOKENS);
    return session;
  }

  /** Puts more than the tier holds. */
  private void fillUp() {
    try (PagesClient stranger = new PagesClient(tier.target, TIMEOUT)) {
      for (int i = 0; i < 80; i++) {
        UnsafeBuffer page = new UnsafeBuffer(new byte[LARGE.pageLength()]);
        Pages.seal(page, 0, LARGE, new PageIdentity(MODEL, 0, 64 * i, PageLayout.TOKENS));
        PageKey key = PageKey.ofSession(new UUID(9, 9), strangers++, MODEL, 0, LARGE);
        stranger.put(List.of(new KeyedPage(key, ByteString.copyFrom(page.byteArray()))));
      }
    }
  }

  private double evicted() throws Exception {
    return tier.metric("kvtier_tier_removed_pages_total{reason=\"size\"}");
  }

  private double pinned() throws Exception {
    return tier.metric("kvtier_tier_pinned_keys");
  }

  private void awaitLeases(int count) throws Exception {
    long deadlineNs = System.nanoTime() + LEASE_TTL.plus(GRACE).toNanos();
    while (tier.metric("kvtier_tier_leases") != count) {
      assertThat(System.nanoTime()).as("leases, not %d", count).isLessThan(deadlineNs);
    }
  }

  @Test
  void whatALiveSessionNeedsStaysAndWhatADeadOneLeftGoes() throws Exception {
    KvSession session = prefilled(1);
    KvSession other = prefilled(2);
    double both = pinned();
    assertThat(both).isGreaterThanOrEqualTo(4.0 * PAGED / 64);
    List<LoadResponse> rows = session.load(0, 0, PAGED);
    List<LoadResponse> last = session.load(Synthetic.LAYERS - 1, 0, PAGED);
    // Longer than a lease runs, so that it must have been renewed.
    long untilNs = System.nanoTime() + LEASE_TTL.multipliedBy(2).toNanos();
    do {
      fillUp();
    } while (System.nanoTime() < untilNs);
    assertThat(evicted()).isPositive();
    assertThat(tier.metric("kvtier_tier_leases_expired_leases_total")).isZero();
    assertThat(session.load(0, 0, PAGED)).isEqualTo(rows);
    assertThat(session.load(Synthetic.LAYERS - 1, 0, PAGED)).isEqualTo(last);
    other.close();
    assertThat(pinned()).as("of two sessions one is closed").isEqualTo(both / 2);
    assertThat(tier.metric("kvtier_tier_leases")).isEqualTo(1);
    worker.kill();
    awaitLeases(0);
    assertThat(pinned()).isZero();
    assertThat(tier.metric("kvtier_tier_leases_leaked_keys")).isZero();
    double before = evicted();
    fillUp();
    assertThat(evicted()).as("pages make room again").isGreaterThan(before);
  }

  @Test
  void aSessionThatNobodyUsesIsClosedAndLeavesNothing() throws Exception {
    Duration idle = Duration.ofMillis(500);
    KvSession unused =
        client.open(
            new SessionOptions(Synthetic.geometry(), TOKENS + 200, 0, Optional.empty())
                .withIdleTimeout(idle));
    new Synthetic(3, TOKENS + 200).prefill(unused, TOKENS);
    double one = pinned();
    KvSession used = prefilled(4);
    // Workers tell with their heartbeats, each third of the 15 s of a node's lease.
    long deadlineNs = System.nanoTime() + Duration.ofSeconds(5).plus(idle).plus(GRACE).toNanos();
    while (client.list().size() != 1 || pinned() != one) {
      assertThat(System.nanoTime()).as("end of the idle session").isLessThan(deadlineNs);
      TimeUnit.MILLISECONDS.sleep(20);
    }
    assertThat(client.list())
        .extracting(Session::getSessionId)
        .containsExactly(used.info().getSessionId());
    assertThatThrownBy(() -> unused.load(0, 0, 64))
        .isInstanceOfSatisfying(
            KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.NOT_FOUND));
    used.close();
    assertThat(pinned()).isZero();
  }
}
