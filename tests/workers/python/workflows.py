"""The Workflows of the Worker, in a module of their own: the SDK loads it anew, in a sandbox, for each Workflow."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import VersioningBehavior

with workflow.unsafe.imports_passed_through():
    from activities import version, work


@workflow.defn
class Batch:
    """Runs so many activities of so many milliseconds side by side."""

    @workflow.run
    async def run(self, activities: int, milliseconds: int) -> None:
        await asyncio.gather(
            *(
                workflow.execute_activity(work, milliseconds, start_to_close_timeout=timedelta(hours=1))
                for _ in range(activities)
            )
        )


class Hold:
    """Asks for the version at its start, and again after the signal "go"."""

    def __init__(self) -> None:
        self._go = False

    @workflow.signal
    def go(self) -> None:
        self._go = True

    async def hold(self) -> None:
        await workflow.execute_activity(version, start_to_close_timeout=timedelta(minutes=1))
        await workflow.wait_condition(lambda: self._go)
        await workflow.execute_activity(version, start_to_close_timeout=timedelta(minutes=1))


@workflow.defn(versioning_behavior=VersioningBehavior.PINNED)
class HoldPinned(Hold):
    @workflow.run
    async def run(self) -> None:
        await self.hold()


@workflow.defn(versioning_behavior=VersioningBehavior.AUTO_UPGRADE)
class HoldAutoUpgrade(Hold):
    @workflow.run
    async def run(self) -> None:
        await self.hold()


@workflow.defn
class Listen:
    """Waits for the signal "say" and tells which language's Worker heard it."""

    def __init__(self) -> None:
        self._heard: str | None = None

    @workflow.signal
    def say(self, text: str) -> None:
        # The first word counts, as with a channel that is read once.
        if self._heard is None:
            self._heard = text

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self._heard is not None)
        return f"python heard {self._heard}"
