package io.kvtier.deploy;

import io.kvtier.deploy.command.BenchCommand;
import io.kvtier.deploy.command.CacheTierCommand;
import io.kvtier.deploy.command.CoordinatorCommand;
import io.kvtier.deploy.command.DemoCommand;
import io.kvtier.deploy.command.DoctorCommand;
import io.kvtier.deploy.command.GpuWorkerCommand;
import io.kvtier.deploy.command.NodesCommand;
import io.kvtier.deploy.command.PlanCommand;
import io.kvtier.deploy.command.ServeCommand;
import io.kvtier.deploy.command.SimulateCommand;
import io.kvtier.deploy.command.TraceCommand;
import java.io.IOException;
import java.io.InputStream;
import java.util.logging.LogManager;
import picocli.CommandLine;
import picocli.CommandLine.Command;

/**
 * The program's entry. Exit codes: 0 done, 1 refused or failed (one line on standard error), 2
 * wrong options.
 */
@Command(
    name = "kvtier",
    description = "A distributed KV-cache offload service for LLM serving.",
    mixinStandardHelpOptions = true,
    version = "kvtier 0.1.0",
    subcommands = {
      ServeCommand.class,
      CoordinatorCommand.class,
      GpuWorkerCommand.class,
      CacheTierCommand.class,
      DemoCommand.class,
      NodesCommand.class,
      PlanCommand.class,
      SimulateCommand.class,
      TraceCommand.class,
      BenchCommand.class,
      DoctorCommand.class
    })
public final class Kvtier implements Runnable {
  @CommandLine.Spec private CommandLine.Model.@org.jspecify.annotations.Nullable CommandSpec spec;

  /** Runs the program and exits. */
  public static void main(String[] args) {
    System.exit(run(args));
  }

  /** Runs the program; returns its exit code. */
  public static int run(String... args) {
    configureLogging();
    CommandLine line = new CommandLine(new Kvtier());
    line.setCaseInsensitiveEnumValuesAllowed(true);
    line.setExecutionExceptionHandler((failure, command, parsed) -> {
      command.getErr().println("kvtier: " + messageOf(failure));
      return CommandLine.ExitCode.SOFTWARE;
    });
    return line.execute(args);
  }

  /** A refusal explains itself; anything else is a fault of ours, whose place must be told. */
  private static String messageOf(Exception failure) {
    String message = failure.getMessage();
    if (message != null && failure instanceof IOException) {
      return failure.getClass().getSimpleName() + ": " + message;
    }
    if (message != null && failure.getClass().getName().startsWith("io.kvtier.")) {
      return message;
    }
    StackTraceElement[] trace = failure.getStackTrace();
    return failure + (trace.length > 0 ? " at " + trace[0] : "");
  }

  private static void configureLogging() {
    try (InputStream settings = Kvtier.class.getResourceAsStream("logging.properties")) {
      LogManager.getLogManager().readConfiguration(settings);
    } catch (IOException e) {
      throw new IllegalStateException("logging.properties is not readable", e);
    }
  }

  @Override
  public void run() {
    if (spec != null) {
      spec.commandLine().usage(System.out);
    }
  }
}
