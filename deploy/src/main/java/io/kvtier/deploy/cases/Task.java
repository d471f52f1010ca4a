package io.kvtier.deploy.cases;

import java.util.Locale;

/** What a context hides and how it is asked for. */
public enum Task {
  /** One sentence, anywhere. */
  NEEDLE(23),
  /** Many such sentences with two-word keys, of which the question names one. */
  MULTIKEY(23),
  /** A dense list of pairs somewhere in the text. */
  KVLIST(8);

  /** Tokens of the nominal length that are left for question and answer. */
  final int questionTokens;

  Task(int questionTokens) {
    this.questionTokens = questionTokens;
  }

  /** The name that case files use. */
  public String label() {
    return name().toLowerCase(Locale.ROOT);
  }
}
