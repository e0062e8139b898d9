"""A Worker on Temporal's Python SDK, as a team would write it: it reads what the operator puts into its environment,
honours Worker Versioning, exports the SDK's metrics and the CPU of the process, and finishes what runs on SIGTERM.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.envconfig import ClientConfig
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import Worker, WorkerDeploymentConfig

from activities import greet, version, work
from workflows import Batch, HoldAutoUpgrade, HoldPinned, Listen

# The time that running activities get after SIGTERM. The SDK's default is none: it cancels them at once.
DRAIN = timedelta(seconds=20)


async def main() -> None:
    task_queue = os.environ.get("TASK_QUEUE")
    if not task_queue:
        sys.exit("TASK_QUEUE is not set; name the Task Queue to poll")
    slots = whole_number("SLOTS", 10, "the activities that run at a time")
    heartbeat = timedelta(seconds=whole_number("HEARTBEAT_SECONDS", 60, "the seconds between two heartbeats"))

    # The SDK leaves signals to the program. Without this, SIGTERM ends the process at once, or, where it is the first
    # one of a container, does nothing at all.
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    metrics = PrometheusConfig(bind_address=os.environ.get("METRICS_ADDRESS") or "0.0.0.0:9090")
    # The operator reads the Worker's heartbeats where it can't read the metrics.
    runtime = Runtime(telemetry=TelemetryConfig(metrics=metrics), worker_heartbeat_interval=heartbeat)
    cpu = asyncio.create_task(export_cpu(runtime))
    # Reads TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY and the TEMPORAL_TLS variables.
    config = ClientConfig.load_client_connect_config()
    config.setdefault("target_host", "localhost:7233")
    client = await Client.connect(**config, runtime=runtime)

    async with Worker(
        client,
        task_queue=task_queue,
        activities=[greet, version, work],
        workflows=[Batch, HoldAutoUpgrade, HoldPinned, Listen],
        max_concurrent_activities=slots,
        deployment_config=deployment(),
        graceful_shutdown_timeout=DRAIN,
    ):
        await stop.wait()
    cpu.cancel()


def whole_number(name: str, fallback: int, meaning: str) -> int:
    """A variable that is a whole number; another text ends the process."""
    try:
        return int(os.environ.get(name) or fallback)
    except ValueError:
        sys.exit(f"{name} is not a number; set {meaning}")


def deployment() -> WorkerDeploymentConfig | None:
    """The version that the operator gave this pod; without one the Worker is unversioned."""
    name, build_id = os.environ.get("TEMPORAL_DEPLOYMENT_NAME"), os.environ.get("TEMPORAL_WORKER_BUILD_ID")
    if not name or not build_id:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name=name, build_id=build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


async def export_cpu(runtime: Runtime) -> None:
    """Adds the CPU seconds of the process to the SDK's page, renewed once a second; the SDK has no such metric."""
    seconds = runtime.metric_meter.create_gauge_float("process_cpu_seconds_total")
    while True:
        seconds.set(time.process_time())
        await asyncio.sleep(1)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    code = 0
    try:
        asyncio.run(main())
    except Exception:
        logging.exception("the Worker failed")
        code = 1
    # Everything is done. An orderly exit of the interpreter would race with the SDK's threads, and abort now and then
    # (temporalio/sdk-python#300).
    logging.shutdown()
    os._exit(code)
