package worker;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import com.uber.m3.tally.RootScopeBuilder;
import com.uber.m3.tally.Scope;
import io.micrometer.core.instrument.Meter;
import io.micrometer.core.instrument.config.MeterFilter;
import io.micrometer.core.instrument.distribution.DistributionStatisticConfig;
import io.micrometer.prometheusmetrics.PrometheusConfig;
import io.micrometer.prometheusmetrics.PrometheusMeterRegistry;
import io.prometheus.metrics.instrumentation.jvm.ProcessMetrics;
import io.temporal.common.reporter.MicrometerClientStatsReporter;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.stream.DoubleStream;

/** The SDK's metrics in Prometheus' text format, renewed once a second, and the CPU of the process. */
record Metrics(Scope scope) {
  /** Edges of the histograms, in seconds. */
  private static final double[] EDGES = {
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600
  };

  static Metrics serve(String address) throws IOException {
    PrometheusMeterRegistry registry = new PrometheusMeterRegistry(PrometheusConfig.DEFAULT);
    registry.config().meterFilter(new Histograms());
    ProcessMetrics.builder().register(registry.getPrometheusRegistry());
    int colon = address.lastIndexOf(':');
    HttpServer server =
        HttpServer.create(
            new InetSocketAddress(
                address.substring(0, colon), Integer.parseInt(address.substring(colon + 1))),
            0);
    server.createContext("/metrics", exchange -> answer(exchange, registry.scrape()));
    server.start();
    return new Metrics(
        new RootScopeBuilder()
            .reporter(new MicrometerClientStatsReporter(registry))
            .reportEvery(com.uber.m3.util.Duration.ofSeconds(1)));
  }

  private static void answer(HttpExchange exchange, String page) throws IOException {
    byte[] bytes = page.getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    exchange.sendResponseHeaders(200, bytes.length);
    try (OutputStream body = exchange.getResponseBody()) {
      body.write(bytes);
    }
  }

  /**
   * The SDK asks for Micrometer's own buckets: 69 for each label of each timer, none above 30 s. These are fewer, reach an
   * hour, and are only where the operator reads them: at waits and executions.
   */
  private static final class Histograms implements MeterFilter {
    @Override
    public DistributionStatisticConfig configure(Meter.Id id, DistributionStatisticConfig config) {
      DistributionStatisticConfig.Builder builder =
          DistributionStatisticConfig.builder().percentilesHistogram(false);
      if (id.getName().matches("temporal_.*(schedule_to_start|execution)_latency")) {
        double nanoseconds = Duration.ofSeconds(1).toNanos();
        builder.serviceLevelObjectives(
            DoubleStream.of(EDGES).map(edge -> edge * nanoseconds).toArray());
      }
      return builder.build().merge(config);
    }
  }
}
