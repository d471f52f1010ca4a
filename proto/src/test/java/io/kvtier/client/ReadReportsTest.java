package io.kvtier.client;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.page.PageKey;
import io.kvtier.v1.TouchRequest;
import org.junit.jupiter.api.Test;

class ReadReportsTest {
  private static PageKey key(int index) {
    return new PageKey(index, 0, 0, 0x100);
  }

  @Test
  void theLatestAreNamedOnceInTheirOrderAndAllAreCounted() {
    ReadReports reports = new ReadReports(request -> {});
    reports.close();
    for (int i = 0; i < 3000; i++) {
      reports.read(key(i % 2500), 10);
    }
    reports.read(key(2100), 7);
    TouchRequest told = reports.take();
    assertThat(told.getReads()).isEqualTo(3001);
    assertThat(told.getBytes()).isEqualTo(30_007);
    // The last 1,024 reads: 1977..2499, 0..499, 2100.
    assertThat(told.getKeysCount()).isEqualTo(ReadReports.KEYS_MAX - 1);
    assertThat(told.getKeys(0)).isEqualTo(key(1977).toByteString());
    assertThat(told.getKeys(told.getKeysCount() - 1)).isEqualTo(key(2100).toByteString());
    assertThat(told.getKeys(told.getKeysCount() - 2)).isEqualTo(key(499).toByteString());
    assertThat(reports.take()).isEqualTo(TouchRequest.getDefaultInstance());
  }
}
