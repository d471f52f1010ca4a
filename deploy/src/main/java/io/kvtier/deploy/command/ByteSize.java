package io.kvtier.deploy.command;

import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** Reads sizes such as 4g, 512m, 64k (powers of 1024) or a plain number. */
final class ByteSize implements ITypeConverter<Long> {
  private static final Pattern FORM = Pattern.compile("([0-9]{1,12})([kmgt]?)i?b?");

  @Override
  public Long convert(String text) {
    Matcher matcher = FORM.matcher(text.trim().toLowerCase(Locale.ROOT));
    if (!matcher.matches()) {
      throw new TypeConversionException(
          "'" + text + "' is no size; write for example 4g, 512m or 65536");
    }
    int shift = 10 * ("kmgt".indexOf(matcher.group(2)) + 1);
    long value = Long.parseLong(matcher.group(1));
    return matcher.group(2).isEmpty() ? value : Math.multiplyExact(value, 1L << shift);
  }
}
