package io.kvtier.rpc;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** The HTTP pages of a service: {@code /metrics} in Prometheus' text format and {@code /health}. */
final class OpsPages implements AutoCloseable {
  private static final int BACKLOG = 16;

  private final HttpServer http;
  private final ExecutorService executor;

  private OpsPages(HttpServer http, ExecutorService executor) {
    this.http = http;
    this.executor = executor;
  }

  static OpsPages start(EndpointConfig config, PrometheusMeterRegistry meters) throws IOException {
    HttpServer http =
        HttpServer.create(new InetSocketAddress(config.host(), config.opsPort()), BACKLOG);
    ExecutorService executor = Executors.newVirtualThreadPerTaskExecutor();
    http.setExecutor(executor);
    http.createContext(
        "/metrics",
        exchange -> answer(exchange, "/metrics", "text/plain; version=0.0.4", meters.scrape()));
    http.createContext(
        "/health",
        exchange -> answer(exchange, "/health", "application/json", "{\"status\":\"SERVING\"}\n"));
    http.start();
    return new OpsPages(http, executor);
  }

  private static void answer(HttpExchange exchange, String path, String type, String body)
      throws IOException {
    try (exchange) {
      if (!exchange.getRequestURI().getPath().equals(path)) {
        exchange.sendResponseHeaders(404, -1);
        return;
      }
      if (!exchange.getRequestMethod().equals("GET")) {
        exchange.sendResponseHeaders(405, -1);
        return;
      }
      byte[] bytes = body.getBytes(UTF_8);
      exchange.getResponseHeaders().set("Content-Type", type);
      exchange.sendResponseHeaders(200, bytes.length);
      try (OutputStream out = exchange.getResponseBody()) {
        out.write(bytes);
      }
    }
  }

  int port() {
    return http.getAddress().getPort();
  }

  @Override
  public void close() {
    http.stop(0);
    executor.close();
  }
}
