package io.kvtier.deploy.command;

import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** Reads shares such as 1/8 or 0.125. */
final class Share implements ITypeConverter<Double> {
  @Override
  public Double convert(String text) {
    try {
      String[] parts = text.split("/", 2);
      double numerator = Double.parseDouble(parts[0].trim());
      return parts.length == 1 ? numerator : numerator / Double.parseDouble(parts[1].trim());
    } catch (NumberFormatException e) {
      throw new TypeConversionException(
          "'" + text + "' is no share; write for example 1/8 or 0.125");
    }
  }
}
