"""Conditions in the standard shape of Kubernetes, and the types that we set. Pure functions on tuples."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from stokehold.api.base import Int, Part
from stokehold.api.times import Timestamp

# Kueue's words where they exist, so that people and dashboards know them.
QUOTA_RESERVED = "QuotaReserved"
ADMITTED = "Admitted"
PODS_READY = "PodsReady"
EVICTED = "Evicted"
REQUEUED = "Requeued"
FINISHED = "Finished"
IDLE = "Idle"
CAPACITY_PROVISIONED = "CapacityProvisioned"
READY = "Ready"
VALID = "Valid"
DEVICES_READY = "DevicesReady"
CAPACITY_AVAILABLE = "CapacityAvailable"
METRICS_FRESH = "MetricsFresh"
SCALING_ACTIVE = "ScalingActive"

TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"


class Condition(Part):
    """One aspect of the state, with the reason for it."""

    type: str
    """The aspect, in CamelCase, for example Admitted. One entry of each type is kept."""
    status: str
    """Whether the aspect holds: True, False or Unknown."""
    reason: str = ""
    """Why, as one CamelCase word that scripts may rely on."""
    message: str = ""
    """Why, as a sentence for people. Scripts must not rely on it."""
    last_transition_time: Timestamp | None = None
    """When the status last changed from one value to another."""
    observed_generation: Int | None = None
    """The metadata.generation that this entry was derived from."""


Conditions = Annotated[
    tuple[Condition, ...],
    Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]


def find_condition(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """Return the condition of the type, or None."""
    return next((condition for condition in conditions if condition.type == kind), None)


def with_condition(conditions: Sequence[Condition], new: Condition) -> tuple[Condition, ...]:
    """Return the conditions with the new one in place of its type.

    The time of the old one stays while the status stays the same: it tells since when.
    """
    old = find_condition(conditions, new.type)
    if old is None:
        return (*conditions, new)
    if old.status == new.status and old.last_transition_time is not None:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return tuple(new if condition.type == new.type else condition for condition in conditions)
