package io.kvtier;

import java.util.regex.Pattern;

/** The rule for names of tenants, the same for sessions and for pages. */
public final class TenantName {
  /** The tenant of those who name none. */
  public static final String DEFAULT = "default";

  private static final Pattern FORM = Pattern.compile("[A-Za-z0-9._-]{1,64}");

  private TenantName() {}

  /**
   * Checks a tenant's name.
   *
   * @return the name
   * @throws KvtierException INVALID if it is none
   */
  public static String require(String name) {
    if (!FORM.matcher(name).matches()) {
      throw KvtierException.invalid(
          "tenant is '%s'; it must be 1..64 characters of A-Z a-z 0-9 . _ -", name);
    }
    return name;
  }
}
