package worker;

import io.temporal.client.WorkflowClient;
import io.temporal.client.WorkflowClientOptions;
import io.temporal.common.VersioningBehavior;
import io.temporal.common.WorkerDeploymentVersion;
import io.temporal.envconfig.ClientConfigProfile;
import io.temporal.serviceclient.WorkflowServiceStubs;
import io.temporal.serviceclient.WorkflowServiceStubsOptions;
import io.temporal.worker.Worker;
import io.temporal.worker.WorkerDeploymentOptions;
import io.temporal.worker.WorkerFactory;
import io.temporal.worker.WorkerOptions;
import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.TimeUnit;

/**
 * A Worker on Temporal's Java SDK, as a team would write it: it reads what the operator puts into its environment,
 * honours Worker Versioning, exports the SDK's metrics with Micrometer, and finishes what runs on SIGTERM.
 */
public final class Main {
  /** Time that running tasks get after SIGTERM. */
  private static final Duration DRAIN = Duration.ofSeconds(20);

  private static final Duration CONNECT = Duration.ofSeconds(10);

  public static void main(String[] args) {
    try {
      run();
    } catch (Throwable e) {
      e.printStackTrace();
      // The threads that serve metrics would keep the process.
      System.exit(1);
    }
  }

  private static void run() throws IOException {
    String queue = env("TASK_QUEUE", "");
    if (queue.isEmpty()) {
      throw new IllegalStateException("TASK_QUEUE is not set; name the Task Queue to poll");
    }
    Metrics metrics = Metrics.serve(env("METRICS_ADDRESS", "0.0.0.0:9090"));
    // Reads TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY and the TEMPORAL_TLS variables.
    ClientConfigProfile profile = ClientConfigProfile.load();
    WorkflowServiceStubs service =
        WorkflowServiceStubs.newConnectedServiceStubs(
            WorkflowServiceStubsOptions.newBuilder(profile.toWorkflowServiceStubsOptions())
                .setMetricsScope(metrics.scope())
                .build(),
            CONNECT);
    // The operator reads the Worker's heartbeats where it can't read the metrics.
    WorkflowClientOptions options =
        WorkflowClientOptions.newBuilder(profile.toWorkflowClientOptions())
            .setWorkerHeartbeatInterval(
                Duration.ofSeconds(number("HEARTBEAT_SECONDS", 60, "the seconds between two heartbeats")))
            .build();
    WorkerFactory factory = WorkerFactory.newInstance(WorkflowClient.newInstance(service, options));

    Worker worker =
        factory.newWorker(
            queue,
            WorkerOptions.newBuilder()
                .setMaxConcurrentActivityExecutionSize(
                    number("SLOTS", 10, "the activities that run at a time"))
                .setDeploymentOptions(deployment())
                // Else the next heartbeat after SIGTERM fails, and the activity with it.
                .setAllowActivityHeartbeatDuringShutdown(true)
                .build());
    worker.registerActivitiesImplementations(new Activities.Sample());
    worker.registerWorkflowImplementationTypes(
        Workflows.BatchWorkflow.class,
        Workflows.HoldPinnedWorkflow.class,
        Workflows.HoldAutoUpgradeWorkflow.class,
        Workflows.ListenWorkflow.class);
    // The SDK has no handler of signals: without this one the process ends at once.
    Runtime.getRuntime().addShutdownHook(new Thread(() -> drain(factory, service)));
    factory.start();
  }

  /** Polls no more, waits for what runs, and interrupts what is left. */
  private static void drain(WorkerFactory factory, WorkflowServiceStubs service) {
    factory.shutdown();
    factory.awaitTermination(DRAIN.toSeconds(), TimeUnit.SECONDS);
    if (!factory.isTerminated()) {
      // Interrupted activities fail, and the server hears of it: it tries them again at once.
      factory.shutdownNow();
      factory.awaitTermination(1, TimeUnit.SECONDS);
    }
    service.shutdown();
  }

  /** The version that the operator gave this pod; without one the Worker is unversioned. */
  private static WorkerDeploymentOptions deployment() {
    String name = env("TEMPORAL_DEPLOYMENT_NAME", "");
    String build = env("TEMPORAL_WORKER_BUILD_ID", "");
    if (name.isEmpty() || build.isEmpty()) {
      return null;
    }
    return WorkerDeploymentOptions.newBuilder()
        .setUseVersioning(true)
        .setVersion(new WorkerDeploymentVersion(name, build))
        .setDefaultVersioningBehavior(VersioningBehavior.AUTO_UPGRADE)
        .build();
  }

  private static int number(String name, int fallback, String meaning) {
    String value = env(name, "");
    try {
      return value.isEmpty() ? fallback : Integer.parseInt(value);
    } catch (NumberFormatException e) {
      throw new IllegalStateException(name + " is not a number; set " + meaning, e);
    }
  }

  private static String env(String name, String fallback) {
    String value = System.getenv(name);
    return value == null || value.isEmpty() ? fallback : value;
  }
}
