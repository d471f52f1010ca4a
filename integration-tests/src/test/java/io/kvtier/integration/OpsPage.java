package io.kvtier.integration;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

/** What a service's metrics page says. */
final class OpsPage {
  private static final Duration TIMEOUT = Duration.ofSeconds(10);

  private OpsPage() {}

  /**
   * A figure of the page.
   *
   * @param opsUrl as services tell it
   * @param name with its tags, if there are any
   */
  static double metric(String opsUrl, String name) throws IOException, InterruptedException {
    try (HttpClient http = HttpClient.newHttpClient()) {
      HttpRequest request =
          HttpRequest.newBuilder(URI.create(opsUrl + "/metrics")).timeout(TIMEOUT).build();
      String page = http.send(request, HttpResponse.BodyHandlers.ofString()).body();
      return page.lines()
          .filter(line -> line.startsWith(name + " "))
          .mapToDouble(line -> Double.parseDouble(line.substring(name.length() + 1)))
          .findFirst()
          .orElseThrow(() -> new AssertionError("no " + name + " in\n" + page));
    }
  }
}
