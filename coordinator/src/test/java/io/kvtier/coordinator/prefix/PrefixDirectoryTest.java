package io.kvtier.coordinator.prefix;

import static org.assertj.core.api.Assertions.assertThat;

import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import io.kvtier.page.PrefixChain;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.UUID;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

final class PrefixDirectoryTest {
  private static final Fingerprint MODEL = new Fingerprint(7, 8);
  private static final int LAYERS = 3;
  private static final PageLayout ROT4 = new PageLayout(Codec.ROT4, Codec.ROT4, 2, 64);
  private static final PageLayout RAW16 = new PageLayout(Codec.RAW16, Codec.RAW16, 2, 64);

  private final PrefixDirectory directory = new PrefixDirectory(1000);
  private final PrefixChain chain = chain(0, 320);

  private static PrefixChain chain(int from, int tokens) {
    return PrefixChain.of("default", MODEL, IntStream.range(from, from + tokens).toArray());
  }

  private PageKey page(int page, int layer, int checksum) {
    return PageKey.ofPrefix(chain, page, checksum, MODEL, layer, ROT4);
  }

  private PageKey sinks(int layer) {
    return PageKey.ofPrefix(chain, 0, 100 + layer, MODEL, layer, RAW16);
  }

  private void storeAll(String node, int pages) {
    for (int layer = 0; layer < LAYERS; layer++) {
      directory.stored(node, sinks(layer));
      for (int page = 0; page < pages; page++) {
        directory.stored(node, page(page, layer, 10 * page + layer));
      }
    }
  }

  @Test
  void theLongestBeginningThatAllLayersHaveIsFound() {
    storeAll("a", 4);
    StoredPrefix found = directory.find(chain, LAYERS, Codec.ROT4);
    assertThat(found.pages()).isEqualTo(4);
    assertThat(found.checksums()).containsExactly(0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32);
    assertThat(found.sinkChecksums()).containsExactly(100, 101, 102);
    directory.removed("a", page(2, 1, 21));
    assertThat(directory.find(chain, LAYERS, Codec.ROT4).pages()).isEqualTo(2);
    directory.removed("a", sinks(0));
    assertThat(directory.find(chain, LAYERS, Codec.ROT4)).isEqualTo(StoredPrefix.NONE);
    assertThat(directory.find(chain(1, 320), LAYERS, Codec.ROT4)).isEqualTo(StoredPrefix.NONE);
  }

  @Test
  void aPageIsThereAsLongAsAnyNodeHoldsIt() {
    storeAll("a", 2);
    storeAll("b", 2);
    directory.removed("a", page(0, 0, 0));
    assertThat(directory.find(chain, LAYERS, Codec.ROT4).pages()).isEqualTo(2);
    directory.forget("b");
    assertThat(directory.find(chain, LAYERS, Codec.ROT4)).isEqualTo(StoredPrefix.NONE);
    directory.stored("a", page(0, 0, 0));
    directory.stored("a", page(0, 0, 0));
    assertThat(directory.find(chain, LAYERS, Codec.ROT4).pages()).isEqualTo(2);
    directory.forget("a");
    assertThat(directory.keys()).isZero();
  }

  @Test
  void ofTwoVersionsOfAPageTheMoreWidelyHeldOneIsTold() {
    storeAll("a", 1);
    directory.stored("b", page(0, 1, 77));
    assertThat(directory.find(chain, LAYERS, Codec.ROT4).checksums()).containsExactly(0, 1, 2);
    directory.stored("c", page(0, 1, 77));
    assertThat(directory.find(chain, LAYERS, Codec.ROT4).checksums()).containsExactly(0, 77, 2);
    directory.forget("b");
    directory.forget("c");
    assertThat(directory.find(chain, LAYERS, Codec.ROT4).checksums()).containsExactly(0, 1, 2);
  }

  @Test
  void pagesOfSessionsAndWhatIsBeyondTheBoundAreNotKept() {
    PrefixDirectory small = new PrefixDirectory(2);
    small.stored("a", PageKey.ofSession(new UUID(1, 2), 0, MODEL, 0, ROT4));
    assertThat(small.keys()).isZero();
    for (int page = 0; page < 3; page++) {
      small.stored("a", page(page, 0, page));
    }
    assertThat(small.keys()).isEqualTo(2);
    assertThat(small.ignored()).isEqualTo(1);
    small.removed("a", page(2, 0, 2));
    small.removed("b", page(1, 0, 1));
    assertThat(small.keys()).isEqualTo(2);
  }

  /** Any order of events gives what is held in the end. */
  @Test
  void eventsInAnyOrderLeaveWhatIsHeld() {
    Random random = new Random(5);
    List<String> held = new ArrayList<>();
    for (int i = 0; i < 5000; i++) {
      int node = random.nextInt(3);
      int page = random.nextInt(4);
      int layer = random.nextInt(LAYERS);
      String name = node + "/" + page + "/" + layer;
      if (random.nextBoolean()) {
        directory.stored("n" + node, page(page, layer, node % 2));
        if (!held.contains(name)) {
          held.add(name);
        }
      } else {
        directory.removed("n" + node, page(page, layer, node % 2));
        held.remove(name);
      }
      assertThat(directory.keys()).as("seed 5, event %d", i).isEqualTo(held.size());
    }
  }
}
