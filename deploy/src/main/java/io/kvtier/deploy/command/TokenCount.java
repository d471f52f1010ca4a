package io.kvtier.deploy.command;

import java.util.Locale;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** Reads numbers of tokens such as 16k (times 1024) or 2000. */
final class TokenCount implements ITypeConverter<Integer> {
  @Override
  public Integer convert(String text) {
    String trimmed = text.trim().toLowerCase(Locale.ROOT);
    if (!trimmed.matches("[0-9]{1,7}k?")) {
      throw new TypeConversionException(
          "'" + text + "' is no number of tokens; write for example 16k or 2000");
    }
    long tokens =
        trimmed.endsWith("k")
            ? Long.parseLong(trimmed.substring(0, trimmed.length() - 1)) * 1024
            : Long.parseLong(trimmed);
    return Math.clamp(tokens, 0, Integer.MAX_VALUE);
  }
}
