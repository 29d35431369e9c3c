"""Writes the node's status beside the cycles: a slow API server delays no look."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from stokehold.agent.metrics import Counts
from stokehold.agent.node_state import NodeState
from stokehold.agent.publish import (
    Status,
    StatusStore,
    StoreError,
    WriteSchedule,
    remembered_activity,
    status_of,
)

logger = logging.getLogger(__name__)

LAST_WRITE_SECONDS = 5.0


class Writer:
    """At most one write at a time, when the schedule says so. Without a store it writes nothing."""

    def __init__(self, schedule: WriteSchedule, store: StatusStore | None, agent_version: str) -> None:
        self.counts = Counts()
        self._schedule = schedule
        self._store = store
        self._version = agent_version
        self._has_read = False
        self._remembered: Mapping[str, datetime] = {}
        self._conditions: Sequence[Status] = ()
        self._told_at = ""  # of the last try: nobody knows whether one without an answer arrived
        self._task: asyncio.Task[None] | None = None

    def offer(self, state: NodeState) -> None:
        """Start a write of the state if one is due and none is under way."""
        if self._store is None or (self._task is not None and not self._task.done()):
            return
        if self._task is not None:
            self._task.result()  # an error that nobody expected ends the agent
        if self._schedule.is_due(self._status(state), time.monotonic()):
            self._task = asyncio.ensure_future(self._write(state, self._store))

    async def close(self, state: NodeState) -> None:
        """The last write, if the API server takes it soon."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._store is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE_SECONDS):
                if await self._is_alone(self._store):
                    await self._write(state, self._store)

    async def _is_alone(self, store: StatusStore) -> bool:
        """Whether nobody has written since we did: an agent that has followed us already must not be contradicted."""
        try:
            found = await store.read_status(self._schedule.node)
        except StoreError:
            return True
        return str((found or {}).get("heartbeatTime", "")) <= self._told_at  # both are of this node's clock

    async def _write(self, state: NodeState, store: StatusStore) -> None:
        node = self._schedule.node
        try:
            if not self._has_read:
                # What an earlier agent saw must outlive it: never overwrite it unread.
                before = await store.read_status(node)
                self._remembered = remembered_activity(before)
                self._conditions = (before or {}).get("conditions") or ()
                self._has_read = True
            status = self._status(state)
            self._told_at = status["heartbeatTime"]
            await store.write_status(node, status)
        except StoreError as error:
            self.counts.failed_writes += 1
            self._schedule.failed(time.monotonic())
            logger.warning("GPUNode %s not written: %s", node, error)
            return
        self.counts.writes += 1
        self._schedule.wrote(status, time.monotonic())
        self._conditions = status["conditions"]

    def _status(self, state: NodeState) -> Status:
        known = replace(state, remembered=self._remembered)
        return status_of(known, self._version, self._conditions)
