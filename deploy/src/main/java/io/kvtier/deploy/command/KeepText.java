package io.kvtier.deploy.command;

import picocli.CommandLine.ITypeConverter;

/** Takes a word as it is. */
final class KeepText implements ITypeConverter<String> {
  @Override
  public String convert(String text) {
    return text;
  }
}
