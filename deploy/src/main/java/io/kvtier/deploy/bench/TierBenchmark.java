package io.kvtier.deploy.bench;

import io.kvtier.client.PageTransport.KeyedPage;
import io.kvtier.client.PagesClient;
import io.kvtier.client.PagesClient.Option;
import io.kvtier.deploy.bench.Duel.Contender;
import io.kvtier.deploy.bench.Duel.Figures;
import io.kvtier.deploy.bench.Duel.Outcome;
import io.kvtier.deploy.bench.Duel.Side;
import io.kvtier.deploy.bench.peer.RedisServer;
import io.kvtier.deploy.bench.peer.RespConnection;
import io.kvtier.page.PageKey;
import io.kvtier.rpc.Closing;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.ToDoubleFunction;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * A cache tier in a process of its own beside a Redis server, both reached by one process of
 * clients, over TCP and over Unix-domain sockets. The tier verifies every page that it takes or
 * gives and its client verifies it again; Redis stores the same bytes unverified.
 */
public final class TierBenchmark implements Benchmark {
  private static final int PAGE_BYTES = TierPages.LAYOUT.pageLength();
  private static final int PAGES = 512;
  private static final int CHAIN = 128;
  private static final long TIER_BYTES_MAX = 2L << 30;
  private static final Duration DEADLINE = Duration.ofSeconds(30);

  /** What a single call's time is judged by. */
  private static final List<Column> TIMES =
      List.of(new Column("p50", "us", Figures::p50Us), new Column("p99", "us", Figures::p99Us));

  private static final List<Column> RATES =
      List.of(
          new Column("", "GB/s", Figures::gbPerSecond),
          new Column("processor time", "s/GB", Figures::cpuSecondsPerGb));

  private record Column(String name, String unit, ToDoubleFunction<Figures> figure) {}

  @Override
  public String name() {
    return "tier";
  }

  @Override
  public String description() {
    return "a cache tier in its own process beside Redis (redis-server must be installed), over"
        + " TCP and Unix-domain sockets";
  }

  @Override
  public List<BenchRow> run(BenchSettings settings, Progress progress) {
    Path program = RedisServer.installed().orElse(null);
    if (program == null) {
      System.err.println(
          "redis-server is not installed (Debian: apt install redis-server); bench tier compares"
              + " with it, so it is skipped");
      return List.of();
    }
    try (Closing closing = new Closing()) {
      Path directory = TierProcess.directory(closing);
      RedisServer redis = closing.add(RedisServer.start(program, directory));
      TierProcess tier = closing.add(TierProcess.start(directory, TIER_BYTES_MAX));
      return new Run(tier, redis, TierPages.of(PAGES), progress, command()).rows();
    } catch (IOException e) {
      throw new UncheckedIOException("no directory for the services of the benchmark", e);
    }
  }

  /** One run over two servers that are up. */
  private static final class Run {
    private final TierProcess tier;
    private final RedisServer redis;
    private final List<KeyedPage> pages;
    private final List<PageKey> keys;
    private final List<byte[]> redisKeys;
    private final List<ByteBuffer> values;
    private final Progress progress;
    private final String command;
    private final List<BenchRow> rows = new ArrayList<>();

    Run(
        TierProcess tier,
        RedisServer redis,
        List<KeyedPage> pages,
        Progress progress,
        String command) {
      this.tier = tier;
      this.redis = redis;
      this.pages = pages;
      this.keys = pages.stream().map(KeyedPage::key).toList();
      this.redisKeys = keys.stream().map(PageKey::toBytes).toList();
      this.values = pages.stream().map(Run::direct).toList();
      this.progress = progress;
      this.command = command;
    }

    private static ByteBuffer direct(KeyedPage page) {
      ByteBuffer value = ByteBuffer.allocateDirect(PAGE_BYTES);
      page.page().copyTo(value);
      return value.flip();
    }

    List<BenchRow> rows() {
      try (PagesClient client = new PagesClient(tier.target(false), DEADLINE);
          RespConnection connection = redis.connect(false)) {
        client.put(pages);
        connection.setPipelined(redisKeys, values);
      }
      for (boolean unix : new boolean[] {false, true}) {
        String over = unix ? "Unix socket" : "TCP";
        duel("one page, " + over + " / GET", unix, 1, 1, get(1), this::redisGet, TIMES, "<= 2.5");
        duel("16 pages, " + over + " / MGET", unix, 1, 16, get(16), redisMget(16), TIMES, "");
        duel("32 pages, " + over + " / MGET", unix, 1, 32, get(32), redisMget(32), TIMES, "<= .8");
        duel(
            "which of 128 pages are there, " + over + " / pipelined EXISTS",
            unix,
            1,
            0,
            this::contains,
            this::redisExists,
            TIMES,
            "<= .5");
        for (int connections : new int[] {1, 4}) {
          String how = ", %d connection%s".formatted(connections, connections == 1 ? "" : "s");
          duel(
              "512 pages, " + over + how + " / pipelined GET",
              unix,
              connections,
              PAGES,
              get(PAGES),
              this::redisPipeline,
              RATES,
              ">= 1.3");
        }
      }
      for (boolean unix : new boolean[] {false, true}) {
        String over = unix ? "Unix socket" : "TCP";
        for (int connections : new int[] {1, 4}) {
          String how = ", %d connection%s".formatted(connections, connections == 1 ? "" : "s");
          duel(
              "512 pages put, " + over + how + " / pipelined SET",
              unix,
              connections,
              PAGES,
              this::put,
              this::redisSet,
              RATES,
              ">= 1.3");
        }
      }
      bare(1);
      bare(4);
      for (boolean unix : new boolean[] {false, true}) {
        directPath(unix, 1, TIMES.subList(0, 1));
        directPath(unix, PAGES, RATES.subList(0, 1));
      }
      local();
      return rows;
    }

    /** How near reads over TCP are to what the system gives. */
    private void bare(int connections) {
      try (Closing closing = new Closing()) {
        List<Contender> ours = new ArrayList<>();
        List<Contender> bare = new ArrayList<>();
        for (int i = 0; i < connections; i++) {
          PagesClient client =
              closing.add(new PagesClient(tier.target(false), DEADLINE, Option.WIRE_ONLY));
          ours.add(get(PAGES).apply(client, i));
          bare.add(closing.add(new BareSockets(values)));
        }
        String name =
            "512 pages, TCP, %d connection%s / bare sockets"
                .formatted(connections, connections == 1 ? "" : "s");
        Outcome outcome =
            Duel.run(
                new Side(tier.process(), ours),
                new Side(ProcessHandle.current(), bare),
                PAGES * (long) PAGE_BYTES,
                progress,
                name);
        addRows(name, outcome, RATES.subList(0, 1), "");
      }
    }

    /** What the direct path gains over gRPC between the same two processes. */
    private void directPath(boolean unix, int count, List<Column> columns) {
      try (PagesClient direct = new PagesClient(tier.target(unix), DEADLINE, Option.WIRE_ONLY);
          PagesClient grpc = new PagesClient(tier.target(unix), DEADLINE, Option.GRPC_ONLY)) {
        String name =
            "%d pages, %s, direct path / gRPC".formatted(count, unix ? "Unix socket" : "TCP");
        Outcome outcome =
            Duel.run(
                new Side(tier.process(), List.of(get(count).apply(direct, 0))),
                new Side(tier.process(), List.of(get(count).apply(grpc, 0))),
                count * (long) PAGE_BYTES,
                progress,
                name);
        addRows(name, outcome, columns, "");
      }
    }

    /** Reads in the tier's files, by this process beside it. */
    private void local() {
      UnsafeBuffer slab = new UnsafeBuffer(ByteBuffer.allocateDirect(PAGES * PAGE_BYTES));
      UnsafeBuffer target = new UnsafeBuffer(ByteBuffer.allocateDirect(PAGE_BYTES));
      ByteBuffer value = ByteBuffer.allocateDirect(PAGE_BYTES);
      int[] next = {0};
      try (PagesClient trusting = new PagesClient(tier.target(true), DEADLINE, Option.TRUSTING);
          PagesClient verifying = new PagesClient(tier.target(true), DEADLINE);
          RespConnection connection = redis.connect(true)) {
        connection.setPipelined(redisKeys, values);
        for (int i = 0; i < PAGES; i++) {
          slab.putBytes(i * PAGE_BYTES, values.get(i), 0, PAGE_BYTES);
        }
        Runnable plain = () -> readOne(trusting, next[0]++ % PAGES);
        Runnable checked = () -> readOne(verifying, next[0]++ % PAGES);
        Runnable memcpy =
            () -> slab.getBytes(next[0]++ % PAGES * PAGE_BYTES, target, 0, PAGE_BYTES);
        Runnable get = () -> connection.get(redisKeys.get(next[0]++ % PAGES), value.clear());
        localRow("read in the tier's file / memcpy", plain, memcpy, true, ">= .9");
        localRow("the same, verified / memcpy", checked, memcpy, true, "");
        localRow("read in the tier's file / GET, Unix socket", plain, get, false, "<= .25");
        localRow("the same, verified / GET, Unix socket", checked, get, false, "");
        requireLocal(trusting);
        requireLocal(verifying);
      }
    }

    private void readOne(PagesClient client, int index) {
      client.read(keys.subList(index, index + 1), (page, offset, length, i) -> {});
    }

    private static void requireLocal(PagesClient client) {
      if (client.localReads() == 0) {
        throw new IllegalStateException("nothing was read in the tier's files");
      }
    }

    private void localRow(
        String name, Runnable ours, Runnable reference, boolean rate, String goal) {
      double[] seconds = Turns.medianSeconds(ours, reference, progress, name);
      double a = rate ? PAGE_BYTES / 1e9 / seconds[0] : seconds[0] * 1e6;
      double b = rate ? PAGE_BYTES / 1e9 / seconds[1] : seconds[1] * 1e6;
      rows.add(new BenchRow(name, a, b, a / b, rate ? "GB/s" : "us", goal, command));
    }

    private void duel(
        String name,
        boolean unix,
        int connections,
        int pagesPerCall,
        BiFunction<PagesClient, Integer, Contender> ours,
        Function<RespConnection, Contender> reference,
        List<Column> columns,
        String goal) {
      try (Closing closing = new Closing()) {
        List<Contender> ourClients = new ArrayList<>();
        List<Contender> redisClients = new ArrayList<>();
        for (int i = 0; i < connections; i++) {
          PagesClient client =
              closing.add(new PagesClient(tier.target(unix), DEADLINE, Option.WIRE_ONLY));
          ourClients.add(ours.apply(client, i));
          redisClients.add(reference.apply(closing.add(redis.connect(unix))));
        }
        Outcome outcome =
            Duel.run(
                new Side(tier.process(), ourClients),
                new Side(redis.process(), redisClients),
                Math.max(1, pagesPerCall) * (long) PAGE_BYTES,
                progress,
                name);
        addRows(name, outcome, columns, goal);
      }
    }

    private void addRows(String name, Outcome outcome, List<Column> columns, String goal) {
      for (int i = 0; i < columns.size(); i++) {
        Column column = columns.get(i);
        double a = column.figure().applyAsDouble(outcome.ours());
        double b = column.figure().applyAsDouble(outcome.reference());
        String full = column.name().isEmpty() ? name : name + ", " + column.name();
        String columnGoal = i == 0 ? goal : "";
        rows.add(new BenchRow(full, a, b, a / b, column.unit(), columnGoal, command));
      }
    }

    private BiFunction<PagesClient, Integer, Contender> get(int count) {
      return (client, index) -> {
        ByteBuffer target = ByteBuffer.allocateDirect(count * PAGE_BYTES);
        int[] from = {0};
        return () -> {
          from[0] = (from[0] + count) % PAGES;
          List<PageKey> asked = keys.subList(from[0], from[0] + count);
          client.read(
              asked,
              (page, offset, length, i) -> page.getBytes(offset, target, i * PAGE_BYTES, length));
        };
      };
    }

    private Contender redisGet(RespConnection connection) {
      ByteBuffer target = ByteBuffer.allocateDirect(PAGE_BYTES);
      int[] next = {0};
      return () -> {
        next[0] = (next[0] + 1) % PAGES;
        connection.get(redisKeys.get(next[0]), target.clear());
      };
    }

    private Function<RespConnection, Contender> redisMget(int count) {
      return connection -> {
        ByteBuffer target = ByteBuffer.allocateDirect(count * PAGE_BYTES);
        int[] from = {0};
        return () -> {
          from[0] = (from[0] + count) % PAGES;
          connection.mget(redisKeys.subList(from[0], from[0] + count), PAGE_BYTES, target);
        };
      };
    }

    private Contender redisPipeline(RespConnection connection) {
      ByteBuffer target = ByteBuffer.allocateDirect(PAGES * PAGE_BYTES);
      return () -> connection.getPipelined(redisKeys, PAGE_BYTES, target);
    }

    private Contender contains(PagesClient client, int index) {
      return () -> client.contains(keys.subList(0, CHAIN));
    }

    private Contender redisExists(RespConnection connection) {
      return () -> connection.existsPipelined(redisKeys.subList(0, CHAIN));
    }

    private Contender put(PagesClient client, int index) {
      return new Contender() {
        private final List<List<PageKey>> done = new ArrayList<>();

        @Override
        public void call() {
          long session = (index + 1L) << 32 | done.size();
          List<KeyedPage> fresh = new ArrayList<>(PAGES);
          for (int i = 0; i < PAGES; i++) {
            fresh.add(new KeyedPage(TierPages.key(session, i), pages.get(i).page()));
          }
          client.put(fresh);
          done.add(fresh.stream().map(KeyedPage::key).toList());
        }

        @Override
        public void undo() {
          done.forEach(client::delete);
          done.clear();
        }
      };
    }

    private Contender redisSet(RespConnection connection) {
      return new Contender() {
        private long session;

        @Override
        public void call() {
          session++;
          List<byte[]> fresh = new ArrayList<>(PAGES);
          for (int i = 0; i < PAGES; i++) {
            fresh.add(
                TierPages.key(session << 32 | System.identityHashCode(connection), i).toBytes());
          }
          connection.setPipelined(fresh, values);
        }

        @Override
        public void undo() {
          connection.clear();
        }
      };
    }
  }
}
