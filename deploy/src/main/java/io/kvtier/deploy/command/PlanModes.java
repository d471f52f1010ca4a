package io.kvtier.deploy.command;

import io.kvtier.KvtierException;
import io.kvtier.v1.PlanMode;
import java.util.Locale;

/** Reads the name of a method. */
final class PlanModes {
  private PlanModes() {}

  static PlanMode of(String text) {
    return switch (text.toLowerCase(Locale.ROOT)) {
      case "kvtier" -> PlanMode.PLAN_MODE_KVTIER;
      case "tailorkv" -> PlanMode.PLAN_MODE_TAILORKV;
      default -> throw KvtierException.invalid("mode is '%s'; it must be kvtier or tailorkv", text);
    };
  }
}
