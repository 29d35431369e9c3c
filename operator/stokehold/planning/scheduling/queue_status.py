"""What the status of each GPUQueue says: whether all that it asks for is done. Pure."""

from collections.abc import Iterator

from stokehold.api import conditions
from stokehold.model.actions import WriteStatus
from stokehold.model.reasons import Support
from stokehold.model.snapshot import Snapshot
from stokehold.model.statuses import dump, told_conditions
from stokehold.model.unsupported import in_queue

ACTIVE = "Active"


def report_queues(snapshot: Snapshot) -> Iterator[WriteStatus]:
    """The statuses that have changed. A queue of which something is not done yet admits work all the same."""
    for _, queue in sorted(snapshot.queues.items()):
        missing = "; ".join(in_queue(queue.spec))
        reason = Support.NOT_SUPPORTED if missing else Support.SUPPORTED
        told = missing or "all that the spec asks for is built"
        news = told_conditions(queue, snapshot.taken_at, (conditions.VALID, not missing, reason, told))
        update = {"observed_generation": queue.generation, "phase": ACTIVE, "conditions": news}
        status = queue.status.model_copy(update=update)
        if status != queue.status and not queue.deleting:
            yield WriteStatus(queue, dump(status))
