package io.kvtier.deploy.bench;

import static io.kvtier.page.PageLayout.TOKENS;

import com.google.protobuf.ByteString;
import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.codec.PageEncoder;
import io.kvtier.page.Codec;
import io.kvtier.page.Fingerprint;
import io.kvtier.page.PageIdentity;
import io.kvtier.page.PageKey;
import io.kvtier.page.PageLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.UUID;
import org.agrona.concurrent.UnsafeBuffer;

/** Pages of one layer of Llama-3.1-8B's geometry, with random contents. */
final class TierPages {
  static final PageLayout LAYOUT = new PageLayout(Codec.ROT4, Codec.ROT4, 8, 128);

  private static final Fingerprint MODEL = new Fingerprint(1, 1);

  private TierPages() {}

  static List<KeyedPage> of(int count) {
    SplittableRandom random = new SplittableRandom(1);
    PageEncoder encoder = new PageEncoder(LAYOUT);
    List<KeyedPage> pages = new ArrayList<>();
    float[] rows = new float[TOKENS * LAYOUT.kvHeads() * LAYOUT.headDim()];
    for (int index = 0; index < count; index++) {
      for (int i = 0; i < rows.length; i++) {
        rows[i] = random.nextFloat(-1, 1);
      }
      byte[] page = new byte[LAYOUT.pageLength()];
      PageIdentity identity = new PageIdentity(MODEL, 0, index * TOKENS, TOKENS);
      encoder.encode(identity, rows, rows, new UnsafeBuffer(page), 0);
      pages.add(new KeyedPage(key(0, index), ByteString.copyFrom(page)));
    }
    return pages;
  }

  static PageKey key(long session, int index) {
    return PageKey.ofSession(new UUID(1, session), index, MODEL, 0, LAYOUT);
  }
}
