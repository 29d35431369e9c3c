"""What an administrator may set about scheduling; plain values, read once at start-up."""

from dataclasses import dataclass
from datetime import timedelta

from stokehold.model.pauses import doubled


@dataclass(frozen=True, slots=True)
class SchedulingSettings:
    """Deadlines and limits of the scheduling planner."""

    bind_timeout: timedelta = timedelta(seconds=60)
    """A gang whose pods are not all bound after this is taken back whole."""
    lost_node_grace: timedelta = timedelta(seconds=10)
    """A pod's node may be missing from our watch for this long before it counts as gone."""
    orphan_grace: timedelta = timedelta(seconds=3)
    """So long after a TrainingJob has gone its pods are the garbage collector's, if that knows our kinds yet."""
    restart_backoff: timedelta = timedelta(seconds=10)
    """Before the first restart after a failure; doubles each time."""
    requeue_backoff: timedelta = timedelta(seconds=5)
    """Before the first new attempt after a fault of the cluster; doubles with each in `fault_window`."""
    longest_backoff: timedelta = timedelta(minutes=5)
    longest_refusal_pause: timedelta = timedelta(minutes=1)
    """What the API server refuses is tried again after `requeue_backoff`, doubled each time up to this."""
    first_restore_pause: timedelta = timedelta(seconds=1)
    """A Service that is taken away again comes back after this, doubled each time up to `longest_backoff`."""
    fault_window: timedelta = timedelta(minutes=5)
    """How long a node that refused workers is remembered, and avoided after `refusals_to_avoid`."""
    refusals_to_avoid: int = 2
    first_report_after: timedelta = timedelta(seconds=1)
    """A job that starts sooner than this never gets a waiting status: one write less."""
    first_running_after: timedelta = timedelta(seconds=2)
    """A job that started at once is reported as Running after this; one that ends sooner goes straight to its end."""
    refresh_every: timedelta = timedelta(seconds=30)
    """How often position and numbers of a waiting job may be rewritten while its reason stays the same."""
    slow_start: timedelta = timedelta(seconds=5)
    """A gang that has not started after this is reported as Starting; a faster one goes straight to Running."""
    most_admissions: int = 400
    """In one plan; the next one follows at once. Keeps plans short and the API server's queue shorter."""
    most_reports: int = 500
    """How many waiting statuses one plan writes, for the same reason: who can start should not stand behind them."""

    def refusal_pause(self, times: int) -> timedelta:
        """How long to wait after the API server has refused something so often in a row."""
        return doubled(self.requeue_backoff, times - 1, self.longest_refusal_pause)

    def restore_pause(self, times: int) -> timedelta:
        """How long a Service that was made anew so often must have stood before it is made once more."""
        return doubled(self.first_restore_pause, times - 1, self.longest_backoff)

    def refresh_interval(self, waiting: int) -> timedelta:
        """`refresh_every`, stretched so that a long queue costs at most ten such writes a second."""
        return max(self.refresh_every, timedelta(seconds=waiting / 10))

    def start_interval(self, others: int) -> timedelta:
        """`slow_start`, stretched while many others start: the API server is busy with them; a telling is a write."""
        return max(self.slow_start, timedelta(seconds=others / 10))

    def running_interval(self, others: int) -> timedelta:
        """`first_running_after`, stretched likewise while many others have just started."""
        return max(self.first_running_after, timedelta(seconds=others / 10))
