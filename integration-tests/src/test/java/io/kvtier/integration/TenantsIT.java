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
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import org.agrona.concurrent.UnsafeBuffer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Sessions of tenants with and without room in a tier that evicts nothing. */
@Timeout(value = 120, unit = TimeUnit.SECONDS)
class TenantsIT {
  private static final int TOKENS = 2000;
  private static final int QUOTA = 16 << 20;
  private static final Duration TIMEOUT = Duration.ofSeconds(20);
  private static final Fingerprint MODEL = new Fingerprint(3, 4);
  private static final PageLayout LARGE = new PageLayout(Codec.RAW16, Codec.RAW16, 8, 128);

  private final Closing started = new Closing();

  @SuppressWarnings("NullAway.Init") // Started before each test.
  private String coordinator;

  @SuppressWarnings("NullAway.Init")
  private ServiceProcess tier;

  @BeforeEach
  void start() throws Exception {
    coordinator = started.add(new ServiceProcess("coordinator")).target;
    tier =
        started.add(
            new ServiceProcess(
                "cache-tier",
                "--coordinator=" + coordinator,
                "--tier-bytes=64m",
                "--quota=small=" + QUOTA,
                "--no-evict"));
    var _ =
        started.add(
            new ServiceProcess(
                "gpu-worker",
                "--coordinator=" + coordinator,
                "--device-bytes=64m",
                "--no-rehearsal"));
  }

  @AfterEach
  void endAll() {
    started.close();
  }

  /** Stores pages of a tenant as long as its quota holds. */
  private void fill(String tenant) {
    try (PagesClient pages = new PagesClient(tier.target, TIMEOUT)) {
      List<KeyedPage> all = new ArrayList<>();
      for (int i = 0; i < QUOTA / LARGE.pageLength(); i++) {
        UnsafeBuffer page = new UnsafeBuffer(new byte[LARGE.pageLength()]);
        Pages.seal(page, 0, LARGE, new PageIdentity(MODEL, 0, 64 * i, PageLayout.TOKENS));
        PageKey key = PageKey.ofSession(new UUID(9, 9), i, MODEL, 0, LARGE);
        all.add(new KeyedPage(key, ByteString.copyFrom(page.byteArray()), tenant));
      }
      pages.put(all);
    }
  }

  private static KvSession open(KvtierClient client) {
    return client.open(SessionOptions.of(Synthetic.geometry(), TOKENS + 200));
  }

  @Test
  void aSessionsPagesAreChargedToItsTenant() {
    fill("small");
    Synthetic model = new Synthetic(1, TOKENS);
    try (KvtierClient small = KvtierClient.connect(coordinator, TIMEOUT, "small");
        KvtierClient other = KvtierClient.connect(coordinator, TIMEOUT, "other")) {
      KvSession refused = open(small);
      assertThatThrownBy(() -> model.prefill(refused, TOKENS))
          .isInstanceOfSatisfying(
              KvtierException.class, e -> assertThat(e.code()).isEqualTo(Code.EXHAUSTED))
          .hasMessageContaining("tenant 'small' is full");
      KvSession served = open(other);
      assertThat(model.prefill(served, TOKENS).hasPlan()).isTrue();
      KvSession fork = served.fork();
      assertThat(fork.info().getTenant()).isEqualTo("other");
      fork.close();
      served.close();
    }
  }
}
