package io.kvtier.client;

import io.kvtier.KvtierException;
import io.kvtier.KvtierException.Code;
import io.kvtier.page.Checksums;
import io.kvtier.page.PageKey;
import io.kvtier.page.Pages;
import io.kvtier.page.Pages.Flaw;
import io.kvtier.wire.PageMessages.Answer;
import java.util.function.Consumer;

/** Whether what a tier has answered is whole: checked by the checksums that come with it. */
final class AnswerChecks {
  /** One of the checks. */
  interface Check {
    /**
     * Checks an answer for a key.
     *
     * @throws KvtierException LOST if it is not sound
     */
    void requireSound(PageKey key, Answer answer);
  }

  private final String peer;
  private final boolean verify;
  private final Consumer<PageKey> flawed;

  /**
   * Checks of a peer's answers.
   *
   * @param verify false: of checksums none
   * @param flawed is told of each page that did not come whole; must not block
   */
  AnswerChecks(String peer, boolean verify, Consumer<PageKey> flawed) {
    this.flawed = flawed;
    this.peer = peer;
    this.verify = verify;
  }

  void requirePage(PageKey key, Answer answer) {
    Flaw flaw =
        verify ? Pages.verify(key, answer.bytes(), answer.offset(), answer.length()) : Flaw.NONE;
    if (flaw != Flaw.NONE) {
      throw flawed(key, flaw);
    }
  }

  void requireSections(PageKey key, Answer answer) {
    int[] lengths = answer.lengths();
    int at = 0;
    for (int i = 0; i < answer.checksums().length; i++) {
      int length = lengths.length == 0 ? 0 : lengths[i % lengths.length];
      if (length <= 0
          || length > answer.length() - at
          || !holds(answer, at, length, answer.checksums()[i])) {
        throw flawed(key, Flaw.SECTION_CHECKSUM);
      }
      at += length;
    }
    if (at != answer.length() || at == 0) {
      throw flawed(key, Flaw.LENGTH);
    }
  }

  void requireRows(PageKey key, Answer answer, int bytes) {
    if (answer.length() != bytes) {
      throw flawed(key, Flaw.LENGTH);
    }
    if (!holds(answer, 0, bytes, answer.checksums()[0])) {
      throw flawed(key, Flaw.SECTION_CHECKSUM);
    }
  }

  private boolean holds(Answer answer, int at, int length, int checksum) {
    return !verify || Checksums.crc32c(answer.bytes(), answer.offset() + at, length) == checksum;
  }

  private KvtierException flawed(PageKey key, Flaw flaw) {
    flawed.accept(key);
    return new KvtierException(
        Code.LOST,
        "page %s did not come whole from %s: %s; read it again".formatted(key, peer, flaw));
  }
}
