// A Worker on Temporal's TypeScript SDK, as a team would write it: it reads what the operator puts into its
// environment, honours Worker Versioning, exports the SDK's metrics and the CPU of the process, and finishes what runs
// on SIGTERM.
import { loadClientConnectConfig } from '@temporalio/envconfig';
import { NativeConnection, Runtime, Worker, type WorkerDeploymentOptions } from '@temporalio/worker';
import { greet, version, work } from './activities';
import { BUNDLE } from './bundle';

// The time that running activities get after SIGTERM. The SDK's default is none: it cancels them at once.
const DRAIN = '20s';

async function main(): Promise<void> {
  const taskQueue = process.env.TASK_QUEUE;
  if (!taskQueue) {
    throw new Error('TASK_QUEUE is not set; name the Task Queue to poll');
  }
  const slots = number('SLOTS', 10, 'the activities that run at a time');
  const heartbeat = number('HEARTBEAT_SECONDS', 60, 'the seconds between two heartbeats');
  const runtime = Runtime.install({
    telemetryOptions: { metrics: { prometheus: { bindAddress: process.env.METRICS_ADDRESS || '0.0.0.0:9090' } } },
    // The operator reads the Worker's heartbeats where it can't read the metrics.
    workerHeartbeatInterval: heartbeat * 1000,
  });
  exportCpu(runtime);
  // Reads TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY and the TEMPORAL_TLS variables.
  const { connectionOptions, namespace } = loadClientConnectConfig();
  const connection = await NativeConnection.connect(connectionOptions);
  try {
    const worker = await Worker.create({
      connection,
      namespace,
      taskQueue,
      activities: { Greet: greet, Version: version, Work: work },
      workflowBundle: { codePath: BUNDLE },
      maxConcurrentActivityTaskExecutions: slots,
      workerDeploymentOptions: deployment(),
      shutdownGraceTime: DRAIN,
    });
    // Ends after SIGTERM, which the SDK's Runtime listens for.
    await worker.run();
  } finally {
    await connection.close();
  }
}

function number(name: string, fallback: number, meaning: string): number {
  const value = Number(process.env[name] || fallback);
  if (!Number.isInteger(value)) {
    throw new Error(`${name} is not a number; set ${meaning}`);
  }
  return value;
}

// The version that the operator gave this pod; without one the Worker is unversioned.
function deployment(): WorkerDeploymentOptions | undefined {
  const { TEMPORAL_DEPLOYMENT_NAME: deploymentName, TEMPORAL_WORKER_BUILD_ID: buildId } = process.env;
  if (!deploymentName || !buildId) {
    return undefined;
  }
  return {
    version: { deploymentName, buildId },
    useWorkerVersioning: true,
    defaultVersioningBehavior: 'AUTO_UPGRADE',
  };
}

// Adds the CPU seconds of the process to the SDK's page, renewed once a second; the SDK has no such metric.
function exportCpu(runtime: Runtime): void {
  const seconds = runtime.metricMeter.createGauge('process_cpu_seconds_total', 'float');
  const renew = () => {
    const { user, system } = process.cpuUsage();
    seconds.set((user + system) / 1e6);
  };
  renew();
  setInterval(renew, 1000).unref();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
