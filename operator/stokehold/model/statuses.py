"""How any planner builds the status that it writes: from the recorded one, with its news laid over it. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from stokehold.api import conditions
from stokehold.api.conditions import Condition, with_condition
from stokehold.model.snapshot import Claim, Job, NodePool, Queue, ServingPool, Workspace

Owner = Job | Workspace | ServingPool
"""What has a status with conditions that a planner writes."""

Status = dict[str, Any]

Recorded = NewType("Recorded", str)
"""A reason that an earlier plan has written down, as it was read."""

News = tuple[str, bool | None, StrEnum | Recorded, str]
"""A condition: its type, whether it holds (None: unknown), one of `reasons`, and the message."""


def render(owner: Owner, update: dict[str, Any]) -> Status:
    """The whole status as it is written: what is recorded, with the update laid over it."""
    return dump(owner.status.model_copy(update={"observed_generation": owner.generation, **update}))


def dump(status: Any) -> Status:
    """A status as plain JSON values, without what is empty."""
    dumped: Status = status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return dumped


def told_conditions(owner: Owner | Claim | NodePool | Queue, now: datetime, *news: News) -> tuple[Condition, ...]:
    """The object's conditions with the news laid over them."""
    result = owner.status.conditions
    for kind, holds, reason, message in news:
        condition = Condition(
            type=kind,
            status=conditions.UNKNOWN if holds is None else conditions.TRUE if holds else conditions.FALSE,
            reason=str(reason),
            message=message,
            last_transition_time=whole(now),
            observed_generation=owner.generation,
        )
        result = with_condition(result, condition)
    return result


def whole(instant: datetime) -> datetime:
    """The instant in whole seconds, as the API server keeps it."""
    return instant.replace(microsecond=0)
