package io.kvtier.deploy.simulate;

import java.util.Arrays;

/** How evenly something lies on nodes, over the looks at it. */
final class Balance {
  private long[] fullest = {};
  private double skewSum;
  private double skewMost;
  private double variationSum;
  private int looks;

  /** A look; one at nodes that have next to nothing says nothing. */
  void look(long[] ofNodes, double meanMin) {
    double mean = Arrays.stream(ofNodes).average().orElse(0);
    if (mean < meanMin) {
      return;
    }
    double skew = Arrays.stream(ofNodes).max().orElse(0) / mean;
    double squares =
        Arrays.stream(ofNodes).mapToDouble(each -> (each - mean) * (each - mean)).sum();
    skewSum += skew;
    skewMost = Math.max(skewMost, skew);
    variationSum += Math.sqrt(squares / ofNodes.length) / mean;
    looks++;
    if (Arrays.stream(ofNodes).sum() > Arrays.stream(fullest).sum()) {
      fullest = Arrays.stream(ofNodes).sorted().toArray();
    }
  }

  /** What each node had when all had most, rising. */
  long[] fullest() {
    return fullest;
  }

  /** The largest node by the mean one: the mean of all looks. */
  double skew() {
    return looks == 0 ? 0 : skewSum / looks;
  }

  /** The same, at its worst look. */
  double skewMost() {
    return skewMost;
  }

  /** The standard deviation by the mean: the mean of all looks. */
  double variation() {
    return looks == 0 ? 0 : variationSum / looks;
  }
}
