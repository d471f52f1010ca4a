package io.kvtier.deploy.command;

import com.github.freva.asciitable.AsciiTable;
import com.github.freva.asciitable.Column;
import com.github.freva.asciitable.ColumnData;
import com.github.freva.asciitable.HorizontalAlign;
import com.google.protobuf.ByteString;
import io.kvtier.KvtierException;
import io.kvtier.coordinator.plan.PlanInputs;
import io.kvtier.coordinator.plan.PlanRates;
import io.kvtier.coordinator.plan.Planner;
import io.kvtier.coordinator.plan.ResidualCurve;
import io.kvtier.coordinator.plan.TailorPlanner;
import io.kvtier.deploy.demo.PromptStream;
import io.kvtier.deploy.engine.Decoder;
import io.kvtier.deploy.engine.LlamaConfig;
import io.kvtier.deploy.engine.LlamaModel;
import io.kvtier.deploy.engine.Tokenizer;
import io.kvtier.deploy.plan.ModelProfile;
import io.kvtier.deploy.plan.PlanRow;
import io.kvtier.gpuworker.session.Footprint;
import io.kvtier.rpc.GeometryLimits;
import io.kvtier.rpc.PlanLimits;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PlanMode;
import io.kvtier.v1.Session;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Makes a plan and says why, without services. */
@Command(
    name = "plan",
    description = {
      "Prints what a session would keep on the device, head by head, and why.",
      "Needs no running services. With weights and our tokenizer in the model's directory the heads"
          + " are profiled on generated text first; with config.json alone there is no profile."
    },
    mixinStandardHelpOptions = true)
public final class PlanCommand implements Callable<Integer> {
  private static final int PROFILE_TOKENS_MAX = 8192;
  private static final double GIGA = 1e9;
  private static final double MEGA_PER_GIGA = 1e3;

  @Option(
      names = "--model",
      description = "directory with config.json (default: the shipped model)")
  private @Nullable Path model;

  @Option(
      names = "--context",
      defaultValue = "8k",
      converter = TokenCount.class,
      description = "tokens of the context (default: ${DEFAULT-VALUE})")
  private int context;

  @Option(
      names = "--gpu-bytes",
      converter = ByteSize.class,
      description = "device bytes of the session (default: a quarter of the full KV cache)")
  private @Nullable Long gpuBytes;

  @Option(
      names = "--code-bits",
      defaultValue = "4",
      description = "bits of a stored key or value element, 4 or 8 (default: ${DEFAULT-VALUE})")
  private int codeBits;

  @Option(
      names = "--mode",
      defaultValue = "kvtier",
      description = "kvtier or tailorkv (default: ${DEFAULT-VALUE})")
  private String mode = "kvtier";

  @Option(
      names = "--bandwidth",
      defaultValue = "1.5",
      description =
          "GB/s from the cache tier, which heads are placed by (default: ${DEFAULT-VALUE})")
  private double bandwidth;

  @Option(
      names = "--seed",
      defaultValue = "1",
      description = "seed of the text that heads are profiled on (default: ${DEFAULT-VALUE})")
  private long seed;

  @Option(
      names = "--endpoint",
      description =
          "a running coordinator, host:port: plans by what sessions have shown it of this model,"
              + " as for a session that sends no queries")
  private @Nullable String endpoint;

  @Option(names = "--json", description = "file to write the rows to as JSON")
  private @Nullable Path json;

  @Override
  public Integer call() throws IOException {
    if (json != null) {
      Rows.requireWritable(json);
    }
    Path directory = model == null ? DemoCommand.shippedModel() : model;
    LlamaConfig config = LlamaConfig.read(directory);
    Session session =
        Session.newBuilder()
            .setGeometry(geometry(config, codeBits))
            .setTokensMax(context)
            .setDeviceBytesMax(gpuBytes == null ? 0 : gpuBytes)
            .setMode(PlanModes.of(mode))
            .build();
    GeometryLimits.check(session.getGeometry());
    Footprint footprint = Footprint.of(session, context);
    PlanInputs bare =
        new PlanInputs(
                session.getGeometry(),
                context,
                session.getDeviceBytesMax(),
                footprint.fixedBytes(),
                footprint.pages(),
                List.of())
            .withRates(rates());
    PlanInputs inputs =
        endpoint == null
            ? bare.withProfile(curves(directory), 0)
            : KnownProfile.of(endpoint, LlamaModel.load(directory), session.getMode(), context)
                .applyTo(bare);
    Plan plan =
        session.getMode() == PlanMode.PLAN_MODE_TAILORKV
            ? TailorPlanner.plan(inputs, context)
            : Planner.plan(inputs);
    List<PlanRow> rows = PlanRow.of(plan, codeBits, bandwidth * GIGA);
    System.out.println(table(rows));
    System.out.println(totals(plan, rows, PromptStream.fullBytes(config, context)));
    if (json != null) {
      Rows.write(json, rows);
    }
    return 0;
  }

  private PlanRates rates() {
    // Written so that NaN is refused too.
    if (!(bandwidth >= 1 / MEGA_PER_GIGA && bandwidth <= PlanLimits.RATE_MAX / MEGA_PER_GIGA)) {
      throw KvtierException.invalid(
          "bandwidth is %s GB/s; it must be %s..%s",
          bandwidth, 1 / MEGA_PER_GIGA, PlanLimits.RATE_MAX / MEGA_PER_GIGA);
    }
    return new PlanRates((int) Math.round(bandwidth * MEGA_PER_GIGA), PlanRates.DEFAULT.attend());
  }

  private static Geometry geometry(LlamaConfig config, int codeBits) {
    return Geometry.newBuilder()
        .setLayers(config.layers())
        .setQHeads(config.qHeads())
        .setKvHeads(config.kvHeads())
        .setHeadDim(config.headDim())
        .setCodeBits(codeBits)
        .setKvDtype(Dtype.DTYPE_BF16)
        .setModelFingerprint(ByteString.copyFrom(new byte[16]))
        .build();
  }

  private List<ResidualCurve> curves(Path directory) throws IOException {
    if (!Files.exists(directory.resolve("model.safetensors"))) {
      return List.of();
    }
    Optional<Tokenizer> tokenizer = Tokenizer.read(directory);
    if (tokenizer.isEmpty()) {
      return List.of();
    }
    int read = Math.clamp(context, 256, PROFILE_TOKENS_MAX);
    try (Decoder decoder = new Decoder(LlamaModel.load(directory));
        Bar bar = new Bar("profile")) {
      return ModelProfile.of(
          decoder,
          tokenizer.get(),
          read,
          context,
          seed,
          (done, total) -> bar.at(done, total, "text of " + read));
    }
  }

  private String totals(Plan plan, List<PlanRow> rows, long full) {
    long heads = rows.stream().mapToLong(PlanRow::deviceBytes).sum();
    long fetch = rows.stream().mapToLong(PlanRow::fetchBytes).sum();
    return """
    device: %,d bytes (exact rows and codes on their way through %,d, heads %,d, hot set %,d) of %s; full KV cache %,d
    fetch: %,d bytes a token predicted, less what the hot set saves, %.2f ms at %.1f GB/s\
    """
        .formatted(
            plan.getDeviceBytes(),
            plan.getDeviceBytes() - heads - plan.getHotSetBytes(),
            heads,
            plan.getHotSetBytes(),
            gpuBytes == null ? "the default share" : "%,d".formatted(gpuBytes),
            full,
            fetch,
            fetch / (bandwidth * GIGA) * 1e3,
            bandwidth);
  }

  private static String table(List<PlanRow> rows) {
    return AsciiTable.getTable(
        AsciiTable.NO_BORDERS,
        rows,
        List.of(
            number("layer", row -> String.valueOf(row.layer())),
            number("head", row -> String.valueOf(row.kvHead())),
            text("class", PlanRow::headClass),
            number("bits", row -> String.valueOf(row.bits())),
            number("sketch planes", row -> orDash(row.sketchPlanes())),
            number("tokens at most", row -> orDash(row.dominantTokens())),
            text("ahead", row -> row.ahead().isEmpty() ? "-" : row.ahead()),
            number("device bytes", row -> String.format(Locale.ROOT, "%,d", row.deviceBytes())),
            number("fetched a token", row -> String.format(Locale.ROOT, "%,d", row.fetchBytes())),
            number("ms", row -> String.format(Locale.ROOT, "%.3f", row.fetchMs())),
            text("why", PlanRow::why)));
  }

  private static String orDash(int value) {
    return value == 0 ? "-" : String.valueOf(value);
  }

  private static ColumnData<PlanRow> text(String header, Function<PlanRow, String> value) {
    return new Column().header(header).dataAlign(HorizontalAlign.LEFT).maxWidth(160).with(value);
  }

  private static ColumnData<PlanRow> number(String header, Function<PlanRow, String> value) {
    return new Column()
        .header(header)
        .headerAlign(HorizontalAlign.RIGHT)
        .dataAlign(HorizontalAlign.RIGHT)
        .with(value);
  }
}
