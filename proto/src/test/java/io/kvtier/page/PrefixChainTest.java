package io.kvtier.page;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

final class PrefixChainTest {
  private static final Fingerprint MODEL = new Fingerprint(0x0001020304050607L, 1);
  private static final int[] IDS = IntStream.range(1000, 1200).toArray();

  private static PrefixChain chain(int... ids) {
    return PrefixChain.of("default", MODEL, ids);
  }

  /** What FORMAT.md says, computed by hand with a shell's SHA-256. */
  @Test
  void goldenHashes() {
    assertThat(HexFormat.of().formatHex(chain(IDS).toByteString().toByteArray()))
        .isEqualTo(
            "b4956b685fcfbb694b99175f784a8636990222470da0ea99"
                + "d5c8bad523205708cef06ff9ef11c7421f1ebd56b9578307");
  }

  @Test
  void onlyWholePagesCountAndEachHashTellsAllTokensBefore() {
    PrefixChain whole = chain(IDS);
    assertThat(whole.pages()).isEqualTo(3);
    assertThat(chain(Arrays.copyOf(IDS, 191)).toByteString()).isEqualTo(hashes(whole, 2));
    assertThat(chain(Arrays.copyOf(IDS, 63)).pages()).isZero();
    int[] other = IDS.clone();
    other[70]++;
    PrefixChain changed = chain(other);
    assertThat(changed.toByteString().substring(0, 16)).isEqualTo(hashes(whole, 1));
    assertThat(changed.high(1)).isNotEqualTo(whole.high(1));
    assertThat(changed.high(2)).isNotEqualTo(whole.high(2));
    assertThat(PrefixChain.of(whole.toByteString()).low(2)).isEqualTo(whole.low(2));
    assertThat(whole.first(1).toByteString()).isEqualTo(hashes(whole, 1));
  }

  private static ByteString hashes(PrefixChain chain, int pages) {
    return chain.toByteString().substring(0, pages * PrefixChain.HASH_LENGTH);
  }

  @Test
  void tenantsAndModelsHaveHashesOfTheirOwn() {
    long mine = chain(IDS).high(0);
    assertThat(PrefixChain.of("other", MODEL, IDS).high(0)).isNotEqualTo(mine);
    assertThat(PrefixChain.of("default", new Fingerprint(MODEL.high(), 2), IDS).high(0))
        .isNotEqualTo(mine);
  }

  @Test
  void brokenHashesAreRefused() {
    ByteString odd = ByteString.copyFrom(new byte[33]);
    assertThatThrownBy(() -> PrefixChain.of(odd))
        .isInstanceOf(KvtierException.class)
        .hasMessage("prefix_hashes has 33 bytes; it must have a multiple of 16");
  }

  @Test
  void aKeyNamesThePagesBytesToo() {
    PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, 1, 64);
    PageKey key = PageKey.ofPrefix(chain(IDS), 2, 0x89abcdef, MODEL, 3, layout);
    assertThat(key.isOfPrefix()).isTrue();
    assertThat(key.headerChecksum()).isEqualTo(0x89abcdef);
    assertThat(key.layer()).isEqualTo(3);
    assertThat(PageKey.of(key.toByteString())).isEqualTo(key);
    PageIdentity identity = new PageIdentity(MODEL, 3, 128, 64);
    assertThat(key.matches(identity, layout, 0x89abcdef)).isTrue();
    assertThat(key.matches(identity, layout, 0x89abcdee)).isFalse();
  }
}
