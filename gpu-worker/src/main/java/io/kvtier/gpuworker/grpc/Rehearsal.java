package io.kvtier.gpuworker.grpc;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.BlockingClientCall;
import io.kvtier.KvtierException;
import io.kvtier.client.ReplicatedPages;
import io.kvtier.gpuworker.cpu.CpuDevice;
import io.kvtier.gpuworker.session.PendingBytes;
import io.kvtier.gpuworker.session.SessionLimits;
import io.kvtier.gpuworker.session.SessionTable;
import io.kvtier.gpuworker.trace.StepListener;
import io.kvtier.page.Codec;
import io.kvtier.page.PageLayout;
import io.kvtier.replica.Rendezvous;
import io.kvtier.replica.ReplicaConfig;
import io.kvtier.rpc.Channels;
import io.kvtier.rpc.Closing;
import io.kvtier.rpc.Endpoint;
import io.kvtier.rpc.EndpointConfig;
import io.kvtier.rpc.Tensors;
import io.kvtier.v1.AttachRequest;
import io.kvtier.v1.AttentionGrpc;
import io.kvtier.v1.DecodeRequest;
import io.kvtier.v1.DecodeStep;
import io.kvtier.v1.DetachRequest;
import io.kvtier.v1.Dtype;
import io.kvtier.v1.Geometry;
import io.kvtier.v1.HeadClass;
import io.kvtier.v1.HeadPlan;
import io.kvtier.v1.KvChunk;
import io.kvtier.v1.Plan;
import io.kvtier.v1.PrefillFinish;
import io.kvtier.v1.PrefillRequest;
import io.kvtier.v1.QueryWindow;
import io.kvtier.v1.Session;
import io.kvtier.v1.StreamOpen;
import io.kvtier.v1.Tensor;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.UUID;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * A session that a new worker serves to itself, over loopback, with a device and a tier of its own
 * that end with it: it is opened, decoded, left, read back and decoded on. What serves sessions is
 * loaded and compiled by it, so that a session that moves here when another worker dies does not
 * wait for that, which is most of its time without service otherwise. Runs once, on one thread.
 */
public final class Rehearsal {
  private static final Logger LOG = Logger.getLogger(Rehearsal.class.getName());
  private static final int LAYERS = 2;
  private static final int Q_HEADS = 8;
  private static final int KV_HEADS = 4;
  private static final int HEAD_DIM = 64;
  private static final int PROMPT = 384;
  private static final int CHUNK = 128;
  private static final int WINDOW = 32;

  /** Before it is left, and once it has been read back. */
  private static final int STEPS = 24;

  private static final long DEVICE_BYTES = 32L << 20;
  private static final long PENDING_BYTES = 8L << 20;
  private static final Duration TIMEOUT = Duration.ofSeconds(60);

  private final ManagedChannel channel;
  private final SplittableRandom random = new SplittableRandom(1);
  private final String id = UUID.randomUUID().toString();
  private final Tensor chunk = tensor(CHUNK, KV_HEADS);
  private final Tensor row = tensor(1, KV_HEADS);

  private Rehearsal(ManagedChannel channel) {
    this.channel = channel;
  }

  /** Begins one behind the caller's back. */
  public static void start() {
    var _ = Thread.ofPlatform().daemon().name("kvtier-rehearsal").start(Rehearsal::runLogged);
  }

  private static void runLogged() {
    long startNs = System.nanoTime();
    try {
      run();
      LOG.log(
          Level.INFO,
          "rehearsed in {0} ms",
          TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - startNs));
    } catch (KvtierException | StatusException | StatusRuntimeException e) {
      // Nobody waits for it: the first session is slower, and that is all.
      LOG.log(Level.WARNING, "the rehearsal broke off: {0}", e.getMessage());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** Runs one to its end. */
  static void run() throws StatusException, InterruptedException {
    try (Closing closing = new Closing()) {
      PrometheusMeterRegistry meters = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
      closing.add(meters::close);
      CpuDevice device = closing.add(new CpuDevice(DEVICE_BYTES));
      PageLayout layout = new PageLayout(Codec.ROT4, Codec.ROT4, KV_HEADS, HEAD_DIM);
      Map<String, RehearsalPages> nodes =
          Map.of("a", new RehearsalPages(layout), "b", new RehearsalPages(layout));
      Rendezvous members = new Rendezvous(1, nodes.keySet());
      ReplicatedPages tier =
          closing.add(
              new ReplicatedPages(() -> members, nodes::get, ReplicaConfig.of(2, 2, TIMEOUT)));
      SessionTable sessions =
          closing.add(
              new SessionTable(
                  device,
                  placement -> tier,
                  1,
                  new SessionLimits(PENDING_BYTES, TIMEOUT.toNanos()),
                  new PendingBytes(2 * PENDING_BYTES),
                  StepListener.NONE));
      AttentionGrpcService service =
          new AttentionGrpcService(
              sessions,
              (session, tokens, curves, fixed, pages) -> plan(),
              new WorkerMeters(meters, device, sessions));
      Endpoint endpoint =
          closing.add(
              Endpoint.start(
                  EndpointConfig.loopback(),
                  List.of(service),
                  meters,
                  Executors.newVirtualThreadPerTaskExecutor()));
      ManagedChannel channel = Channels.open(endpoint.target());
      closing.add(() -> Channels.close(channel));
      new Rehearsal(channel).serve();
    }
  }

  private static Plan plan() {
    Plan.Builder plan = Plan.newBuilder().setDominantTokensMin(64).setHotSetBytes(256 << 10);
    for (int head = 0; head < LAYERS * KV_HEADS; head++) {
      boolean dense = head % KV_HEADS == 0;
      plan.addHeads(
          HeadPlan.newBuilder()
              .setLayer(head / KV_HEADS)
              .setKvHead(head % KV_HEADS)
              .setHeadClass(dense ? HeadClass.HEAD_CLASS_DENSE : HeadClass.HEAD_CLASS_SPARSE)
              .setDominantTokensMax(dense ? 0 : 256)
              .setResidualMass(dense ? 0 : .01f));
    }
    return plan.build();
  }

  private Tensor tensor(int tokens, int heads) {
    float[] elements = new float[tokens * heads * HEAD_DIM];
    for (int i = 0; i < elements.length; i++) {
      elements[i] = (float) random.nextGaussian();
    }
    return Tensors.of(Dtype.DTYPE_FP32, elements, tokens, heads, HEAD_DIM);
  }

  private static Session session(String id) {
    return Session.newBuilder()
        .setSessionId(id)
        .setEpoch(1)
        .setGeometry(
            Geometry.newBuilder()
                .setLayers(LAYERS)
                .setQHeads(Q_HEADS)
                .setKvHeads(KV_HEADS)
                .setHeadDim(HEAD_DIM)
                .setKvDtype(Dtype.DTYPE_FP32)
                .setModelFingerprint(ByteString.copyFromUtf8("a rehearsal     ")))
        .setTokensMax(PROMPT + 2 * STEPS)
        .build();
  }

  private void serve() throws StatusException, InterruptedException {
    Session session = session(id);
    var _ = worker().attach(AttachRequest.newBuilder().setSession(session).build());
    prefill(1, 0, PROMPT);
    decode(1, PROMPT);
    var _ =
        worker()
            .detach(
                DetachRequest.newBuilder().setSessionId(id).setEpoch(1).setKeepPages(true).build());
    int stored =
        worker()
            .attach(
                AttachRequest.newBuilder()
                    .setSession(session.toBuilder().setEpoch(2).setPlan(plan()))
                    .setResume(true)
                    .build())
            .getLayerTokens(0);
    prefill(2, stored, PROMPT + STEPS);
    decode(2, PROMPT + STEPS);
    var _ = worker().detach(DetachRequest.newBuilder().setSessionId(id).setEpoch(2).build());
  }

  private AttentionGrpc.AttentionBlockingStub worker() {
    return AttentionGrpc.newBlockingStub(channel)
        .withDeadlineAfter(TIMEOUT.toMillis(), TimeUnit.MILLISECONDS);
  }

  private StreamOpen open(long epoch) {
    return StreamOpen.newBuilder().setSessionId(id).setEpoch(epoch).build();
  }

  /** Sends a request and waits for its answer. */
  private static <Q> void ask(BlockingClientCall<Q, ?> stream, Q request)
      throws StatusException, InterruptedException {
    boolean _ = stream.write(request);
    var _ = stream.read();
  }

  private void prefill(long epoch, int from, int to) throws StatusException, InterruptedException {
    BlockingClientCall<PrefillRequest, ?> stream =
        AttentionGrpc.newBlockingV2Stub(channel).prefill();
    ask(stream, PrefillRequest.newBuilder().setOpen(open(epoch)).build());
    for (int layer = 0; layer < LAYERS; layer++) {
      for (int at = from; at < to; at += CHUNK) {
        Tensor rows = to - at >= CHUNK ? chunk : tensor(to - at, KV_HEADS);
        KvChunk.Builder next =
            KvChunk.newBuilder().setLayer(layer).setPosition(at).setKeys(rows).setValues(rows);
        ask(stream, PrefillRequest.newBuilder().setChunk(next).build());
      }
      QueryWindow.Builder last =
          QueryWindow.newBuilder().setLayer(layer).setQueries(tensor(WINDOW, Q_HEADS));
      ask(stream, PrefillRequest.newBuilder().setQueries(last).build());
    }
    PrefillFinish.Builder finish = PrefillFinish.newBuilder().setTokens(to);
    ask(stream, PrefillRequest.newBuilder().setFinish(finish).build());
    stream.halfClose();
  }

  private void decode(long epoch, int from) throws StatusException, InterruptedException {
    BlockingClientCall<DecodeRequest, ?> stream = AttentionGrpc.newBlockingV2Stub(channel).decode();
    boolean _ = stream.write(DecodeRequest.newBuilder().setOpen(open(epoch)).build());
    for (int position = from; position < from + STEPS; position++) {
      for (int layer = 0; layer < LAYERS; layer++) {
        ask(
            stream,
            DecodeRequest.newBuilder()
                .setStep(
                    DecodeStep.newBuilder()
                        .setLayer(layer)
                        .setPosition(position)
                        .setQueries(tensor(1, Q_HEADS))
                        .setKeys(row)
                        .setValues(row))
                .build());
      }
    }
    stream.halfClose();
  }
}
