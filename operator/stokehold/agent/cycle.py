"""One cycle after another: look, judge, tell. Neither builds its parts nor reads options."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from stokehold.agent.attribution import match_owners
from stokehold.agent.node_state import Instant, NodeState, Observation, Rules, observe
from stokehold.agent.pod_resources import PodResources
from stokehold.agent.processes import ProcessTable
from stokehold.agent.readings import GpuReading, Missing, NodeReading
from stokehold.agent.sampler import Sampler
from stokehold.agent.writing import Writer

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Senses:
    """What the agent learns from."""

    sampler: Sampler
    kubelet: PodResources
    processes: ProcessTable


class Agent:
    """Look, judge, tell."""

    def __init__(self, senses: Senses, writer: Writer, rules: Rules, interval: float, clock: Clock) -> None:
        self._senses = senses
        self._writer = writer
        self._rules = rules
        self._interval = interval
        self._clock = clock
        self._gpus: tuple[GpuReading, ...] = ()
        self._said = ""
        self.counts = writer.counts
        self.state = NodeState(self._instant(), boot_id=senses.processes.boot_id())

    async def run(self, stop: asyncio.Event) -> None:
        """One cycle at each interval until stopped; a cycle under way is given up then."""
        stopping = asyncio.ensure_future(stop.wait())
        next_at = time.monotonic()
        while not stop.is_set():
            cycle = asyncio.ensure_future(self.cycle())
            await asyncio.wait({cycle, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not cycle.done():
                cycle.cancel()
                with suppress(asyncio.CancelledError):
                    await cycle
                return
            cycle.result()
            next_at = self._next(next_at)
            await asyncio.wait({stopping}, timeout=next_at - time.monotonic())

    async def cycle(self) -> None:
        """Gather, judge, and write if something changed."""
        start = time.monotonic()
        look, allocations = await asyncio.gather(self._senses.sampler.look(), self._senses.kubelet.list())
        self._gpus = look.gpus if not look.error else self._gpus
        seen = Observation(
            at=self._instant(),
            look=look,
            ownership=match_owners(allocations, self._gpus),
            process_owners=self._senses.processes.owners_of(_pids(look)),
            pod_uids=self._senses.processes.pod_uids(),
        )
        self.state = observe(self.state, seen, self._rules)
        self._say_once()
        self._writer.offer(self.state)
        self.counts.cycles += 1
        self.counts.sampler_restarts = self._senses.sampler.restarts
        self.counts.cycle_seconds = time.monotonic() - start

    async def close(self) -> None:
        """Let go of the driver first, then tell that nobody looks any more."""
        await self._senses.sampler.close()
        self._senses.kubelet.close()
        seen = Observation(
            at=self._instant(),
            look=NodeReading(error="the agent was stopped"),
            ownership=self.state.ownership,
            process_owners={},
        )
        self.state = observe(self.state, seen, self._rules)
        await self._writer.close(self.state)

    def _next(self, last: float) -> float:
        """The next start: on the beat, leaving out the beats that were missed."""
        following, now = last + self._interval, time.monotonic()
        if following >= now:
            return following
        self.counts.overruns += 1
        return now

    def _say_once(self) -> None:
        """One log line for each change of trouble, not one for each look."""
        ownership = self.state.ownership
        troubles = [self.state.look.error]
        troubles += [ownership.evidence] if isinstance(ownership, Missing) else []
        said = "; ".join(trouble for trouble in troubles if trouble)
        if said != self._said:
            logger.warning("degraded: %s", said) if said else logger.info("well again")
        self._said = said

    def _instant(self) -> Instant:
        return Instant(time.monotonic(), self._clock())


def _pids(look: NodeReading) -> set[int]:
    pids: set[int] = set()
    for gpu in look.gpus:
        instances = () if isinstance(gpu.instances, Missing) else gpu.instances
        for processes in (gpu.processes, *(instance.processes for instance in instances)):
            if not isinstance(processes, Missing):
                pids.update(process.pid for process in processes)
    return pids
