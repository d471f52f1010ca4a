package io.kvtier.deploy.simulate;

import java.util.Arrays;
import java.util.SplittableRandom;

/**
 * Draws conversations: which shared beginning a prompt has (Zipf's law, exponent 1), how long it,
 * the prompt, what the user says and what is generated are (log-normal), how many turns there are
 * (geometric), how long the user thinks (log-normal), and whether he comes back later with all that
 * was said as a new prompt.
 */
final class Workload {
  /** A quarter of the conversations go on in another session. */
  private static final double COMES_BACK = .25;

  /** Longer than anybody thinks. */
  static final int IDLE_TIMEOUT_MS = 300_000;

  private static final double LAST_TURN = .33;
  private static final int TURNS_MAX = 12;
  private static final int TOKENS_MAX = 32_768;
  private static final int TENANTS = 4;
  private static final double SECOND_NS = 1e9;

  private final SplittableRandom random;
  private final double[] cumulative;
  private final int[] prefixTokens;
  private long conversations;

  /**
   * One prompt and what follows.
   *
   * @param conversation names its tokens
   * @param prefix the shared beginning
   * @param prefixTokens how long that is; the conversation's own tokens follow
   * @param promptTokens in all
   */
  record Prompt(long conversation, int prefix, int prefixTokens, int promptTokens) {
    String tenant() {
      return "tenant-" + prefix % TENANTS;
    }

    /** The ids of the first tokens, those of the prompt and any that follow it. */
    int[] tokenIds(int tokens) {
      int[] ids = new int[tokens];
      for (int i = 0; i < tokens; i++) {
        ids[i] = (int) mix((i < prefixTokens ? ~(long) prefix : conversation) * 31 + i) & 0xFFFF;
      }
      return ids;
    }
  }

  Workload(SplittableRandom random, int prefixes) {
    this.random = random;
    this.cumulative = new double[prefixes];
    this.prefixTokens = new int[prefixes];
    double sum = 0;
    for (int i = 0; i < prefixes; i++) {
      sum += 1. / (i + 1);
      cumulative[i] = sum;
      prefixTokens[i] = tokens(500, .8);
    }
  }

  static long mix(long z) {
    z = (z ^ z >>> 30) * 0xBF58_476D_1CE4_E5B9L;
    z = (z ^ z >>> 27) * 0x94D0_49BB_1331_11EBL;
    return z ^ z >>> 31;
  }

  private int tokens(double median, double sigma) {
    return (int) Math.clamp(logNormal(median, sigma), 8, TOKENS_MAX / 4);
  }

  private double logNormal(double median, double sigma) {
    return median * Math.exp(sigma * random.nextGaussian());
  }

  /** A new conversation's prompt. */
  Prompt prompt() {
    double at = random.nextDouble() * cumulative[cumulative.length - 1];
    int found = Arrays.binarySearch(cumulative, at);
    int prefix = found < 0 ? -found - 1 : found;
    int shared = prefixTokens[prefix];
    return new Prompt(conversations++, prefix, shared, shared + tokens(250, .9));
  }

  /** The prompt with which a conversation of so many tokens goes on. */
  Prompt next(Prompt before, int tokens) {
    return new Prompt(
        before.conversation, before.prefix, before.prefixTokens, tokens + tokens(100, .8));
  }

  boolean comesBack(int tokens) {
    return tokens < TOKENS_MAX / 2 && random.nextDouble() < COMES_BACK;
  }

  int turns() {
    int turns = 1;
    while (turns < TURNS_MAX && random.nextDouble() >= LAST_TURN) {
      turns++;
    }
    return turns;
  }

  int said() {
    return tokens(60, .8);
  }

  int generated() {
    return tokens(150, .8);
  }

  long thinkNs() {
    return (long) (SECOND_NS * Math.clamp(logNormal(40, .8), 2, 240));
  }

  long awayNs() {
    return (long) (SECOND_NS * Math.clamp(logNormal(120, 1), 10, 1200));
  }

  /** Longest context that a session is opened for. */
  int tokensMax() {
    return 2 * TOKENS_MAX;
  }
}
