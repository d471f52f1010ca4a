package io.kvtier.cachetier.memory;

import static io.kvtier.cachetier.TestPages.key;
import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.cachetier.PageStore;
import io.kvtier.cachetier.PageStoreContractTest;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;

/** The contract, and what is this store's: alignment, nothing kept. */
final class MemoryPageStoreTest extends PageStoreContractTest {
  @Override
  protected PageStore open(Path directory, long bytesMax) {
    return new MemoryPageStore(bytesMax);
  }

  @Test
  void pagesAreAlignedForTheVectorUnit() {
    try (PageStore store = open(directory, 1 << 20)) {
      for (int i = 0; i < 20; i++) {
        put(store, i, 640 + i);
        Long address = store.read(key(i), (page, at, length) -> page.addressOffset() + at);
        assertThat(address).isNotNull().matches(at -> at % 64 == 0);
      }
    }
  }

  @Test
  void nothingSurvivesAClose() {
    PageStore store = open(directory, 1 << 20);
    put(store, 1, 640);
    store.close();
    assertThat(store.bytesUsed()).isZero();
    try (PageStore again = open(directory, 1 << 20)) {
      assertThat(again.contains(key(1))).isFalse();
    }
  }
}
