package io.kvtier.integration;

import io.kvtier.client.KvtierClient;
import io.kvtier.rpc.Closing;
import java.io.IOException;
import java.net.BindException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** A cluster whose services are processes, any of which can be killed and started again. */
final class ProcessCluster implements AutoCloseable {
  private static final Duration LEADER_WAIT = Duration.ofSeconds(30);

  private final Path data;
  private final int replicas;
  private final String[] workerOptions;
  private final Closing started = new Closing();
  private final Map<String, String[]> coordinatorArguments = new TreeMap<>();
  private final Map<String, ServiceProcess> coordinators = new TreeMap<>();
  private final Map<String, ServiceProcess> tiers = new TreeMap<>();
  private final List<String> allTiers = new ArrayList<>();
  private final Map<String, ServiceProcess> workers = new TreeMap<>();
  private String targets = "";
  private int names;

  /**
   * An empty one.
   *
   * @param data where tiers and coordinators keep what they keep
   * @param replicas copies of each page
   */
  ProcessCluster(Path data, int replicas, String... workerOptions) {
    this.data = data;
    this.replicas = replicas;
    this.workerOptions = workerOptions;
  }

  /** Starts coordinators that keep their state; one by itself, or several that agree. */
  void startCoordinators(int count) throws Exception {
    List<String> peers = new ArrayList<>();
    List<String> own = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      int raft = freePort();
      int grpc = freePort();
      own.add("127.0.0.1:" + grpc);
      peers.add("c" + i + "=127.0.0.1:" + raft + ":" + grpc);
    }
    targets = String.join(",", own);
    for (int i = 0; i < count; i++) {
      String directory = "--data=" + data.resolve("c" + i);
      coordinatorArguments.put(
          "c" + i,
          count == 1
              ? new String[] {
                "coordinator", directory, "--port=" + targets.substring(targets.indexOf(':') + 1)
              }
              : new String[] {
                "coordinator", directory, "--id=c" + i, "--peers=" + String.join(",", peers)
              });
      startCoordinator("c" + i);
    }
  }

  /** None of those that the system deals out: whoever connects meanwhile may get them. */
  private static int freePort() throws IOException {
    BindException taken = new BindException("no port is free");
    for (int attempt = 0; attempt < 100; attempt++) {
      int port = ThreadLocalRandom.current().nextInt(10_000, 30_000);
      try (ServerSocket socket = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
        return socket.getLocalPort();
      } catch (BindException e) {
        taken.addSuppressed(e);
      }
    }
    throw taken;
  }

  /** Starts one that was there before. */
  void startCoordinator(String id) throws Exception {
    String[] arguments = Objects.requireNonNull(coordinatorArguments.get(id), id);
    coordinators.put(id, started.add(new ServiceProcess(arguments)));
  }

  /** Starts those that were killed, or stopped, again. */
  void startMissingCoordinators() throws Exception {
    for (String id : coordinatorArguments.keySet()) {
      if (!coordinators.containsKey(id)) {
        startCoordinator(id);
      }
    }
  }

  /** Starts a tier; one of the same id was there before, or not. */
  void startTier(String id) throws Exception {
    tiers.put(
        id,
        started.add(
            new ServiceProcess(
                "cache-tier",
                "--coordinator=" + targets,
                "--node-id=" + id,
                "--tier-bytes=64m",
                // Its files would serve on after its death.
                "--no-files",
                "--data=" + data.resolve(id))));
  }

  /** Starts those of the beginning that were killed again. */
  void startMissingTiers() throws Exception {
    for (String id : allTiers) {
      if (!tiers.containsKey(id)) {
        startTier(id);
      }
    }
  }

  /** Starts a worker; its target. */
  String startWorker() throws Exception {
    List<String> arguments =
        new ArrayList<>(
            List.of(
                "gpu-worker",
                "--coordinator=" + targets,
                "--node-id=worker-" + names++,
                "--device-bytes=64m",
                "--replicas=" + replicas));
    arguments.addAll(List.of(workerOptions));
    ServiceProcess worker = started.add(new ServiceProcess(arguments.toArray(String[]::new)));
    workers.put(worker.target, worker);
    return worker.target;
  }

  void startAll(int coordinatorCount, int tierCount, int workerCount) throws Exception {
    startCoordinators(coordinatorCount);
    for (int i = 0; i < tierCount; i++) {
      allTiers.add("tier-" + i);
      startTier("tier-" + i);
    }
    for (int i = 0; i < workerCount; i++) {
      var _ = startWorker();
    }
  }

  /** Waits until all workers have served a session to themselves. */
  void awaitRehearsals() throws InterruptedException {
    for (ServiceProcess worker : workers.values()) {
      worker.awaitLine("rehearsed in");
    }
  }

  /** All coordinators, as clients and nodes name them. */
  String targets() {
    return targets;
  }

  KvtierClient connect(Duration timeout) {
    return started.add(KvtierClient.connect(targets, timeout));
  }

  ServiceProcess coordinator(String id) {
    return Objects.requireNonNull(coordinators.get(id), id);
  }

  ServiceProcess tier(String id) {
    return Objects.requireNonNull(tiers.get(id), id);
  }

  List<String> tierIds() {
    return List.copyOf(tiers.keySet());
  }

  /** The coordinator that leads, once one does. */
  String leader() throws Exception {
    long startNs = System.nanoTime();
    while (System.nanoTime() - startNs < LEADER_WAIT.toNanos()) {
      for (Map.Entry<String, ServiceProcess> each : coordinators.entrySet()) {
        if (each.getValue().metric("kvtier_coordinator_leads") == 1) {
          return each.getKey();
        }
      }
      TimeUnit.MILLISECONDS.sleep(20);
    }
    throw new AssertionError("no coordinator leads within " + LEADER_WAIT);
  }

  void killCoordinator(String id) throws Exception {
    Objects.requireNonNull(coordinators.remove(id), id).kill();
  }

  void killTier(String id) throws Exception {
    Objects.requireNonNull(tiers.remove(id), id).kill();
  }

  void killWorker(String target) throws Exception {
    Objects.requireNonNull(workers.remove(target), target).kill();
  }

  /** Ends everything in order, as a shutdown does. */
  void stopAll() {
    for (Map<String, ServiceProcess> each : List.of(workers, tiers, coordinators)) {
      each.values().forEach(ServiceProcess::close);
      each.clear();
    }
  }

  @Override
  public void close() {
    started.close();
  }
}
