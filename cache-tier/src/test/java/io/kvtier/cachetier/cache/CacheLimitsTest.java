package io.kvtier.cachetier.cache;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.kvtier.KvtierException;
import io.kvtier.cachetier.PageStore;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class CacheLimitsTest {
  @ParameterizedTest
  @ValueSource(strings = {"PT0S", "PT-1S", "PT0.999S", "PT87600H0.001S"})
  void theTimeToLiveIsBounded(String ttl) {
    assertThatThrownBy(
            () -> new CacheLimits(Optional.of(Duration.parse(ttl)), Long.MAX_VALUE, Map.of()))
        .isInstanceOf(KvtierException.class)
        .hasMessage("ttl is %s; it must be PT1S..PT87600H", Duration.parse(ttl));
  }

  @Test
  void quotasHoldAtLeastAPage() {
    long tooFew = PageStore.PAGE_BYTES_MAX - 1;
    assertThatThrownBy(() -> new CacheLimits(Optional.empty(), tooFew, Map.of()))
        .hasMessageStartingWith("tenant bytes max is 16777215; it must be 16777216..");
    assertThatThrownBy(() -> new CacheLimits(Optional.empty(), Long.MAX_VALUE, Map.of("a", tooFew)))
        .hasMessageStartingWith("quota of tenant a is 16777215; it must be 16777216..");
    assertThatThrownBy(
            () -> new CacheLimits(Optional.empty(), Long.MAX_VALUE, Map.of("a b", 1L << 30)))
        .hasMessageStartingWith("tenant is 'a b'; it must be");
  }

  @Test
  void aTenantWithoutAQuotaHasThatOfAll() {
    CacheLimits limits = new CacheLimits(Optional.empty(), 1L << 30, Map.of("a", 1L << 31));
    assertThat(limits.quotaOf("a")).isEqualTo(1L << 31);
    assertThat(limits.quotaOf("b")).isEqualTo(1L << 30);
  }
}
