"""The activities of the Worker, as coroutines. One that blocks would hold up all others, and belongs on a thread."""

import asyncio
import os

from temporalio import activity


@activity.defn(name="Work")
async def work(milliseconds: int) -> int:
    """Holds a slot for so many milliseconds; a cancellation ends the sleep."""
    await asyncio.sleep(milliseconds / 1000)
    return milliseconds


@activity.defn(name="Version")
async def version() -> str:
    """The Build ID of the Worker that runs it."""
    return os.environ.get("TEMPORAL_WORKER_BUILD_ID", "")


@activity.defn(name="Greet")
async def greet(name: str) -> str:
    """Tells which language's Worker took the task."""
    return f"python greets {name}"
