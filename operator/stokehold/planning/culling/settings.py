"""What an administrator may set about workspaces; plain values, read once at start-up."""

from dataclasses import dataclass
from datetime import timedelta

from stokehold.model.pauses import doubled


@dataclass(frozen=True, slots=True)
class CullingSettings:
    """Deadlines and limits of the culling planner."""

    agent_silent_after: timedelta = timedelta(minutes=11)
    """A GPUNode without a heartbeat for longer says nothing any more: twice the agent's slow beat, and a bit."""
    notebook_silent_after: timedelta = timedelta(minutes=2)
    """The same for the answers of Jupyter servers, which are asked twice a minute."""
    clock_tolerance: timedelta = timedelta(minutes=1)
    """A heartbeat further in the future than this comes from a clock that cannot be trusted."""
    least_coverage: float = 0.9
    """The part of the idle time for which there must be measurements."""
    agent_util_percent: int = 3
    """The utilisation above which the agents call a GPU active; nobody can tell use from idleness below it."""
    bind_timeout: timedelta = timedelta(seconds=60)
    """A workspace whose pod is not made or not bound after this gives its GPUs back."""
    first_pause: timedelta = timedelta(seconds=5)
    """How long it waits then; doubles each time its pod does not come up, up to `longest_pause`."""
    longest_pause: timedelta = timedelta(minutes=5)
    latest_start: timedelta = timedelta(hours=1)
    """A start by the clock that was missed for longer than this is left out."""
    refresh_every: timedelta = timedelta(minutes=5)
    """How often the figures of `status.activity` are rewritten while nothing else changes."""
    mass_idle_share: float = 0.5
    """The breaker opens when this part of the running workspaces ..."""
    mass_idle_least: int = 5
    """... and at least so many ..."""
    mass_idle_within: timedelta = timedelta(minutes=10)
    """... turned quiet within this time of each other."""
    mass_idle_hold: timedelta = timedelta(hours=24)
    """For how long after their stop would have been due it stays open."""

    def pause_after(self, failed_starts: int) -> timedelta:
        """How long a workspace waits whose pod did not come up so often in a row."""
        return doubled(self.first_pause, failed_starts - 1, self.longest_pause)
