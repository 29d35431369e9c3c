"""What administrators set down: namespaces, priorities, holidays, autoscalers."""

from datetime import date

from stokehold.api.names import GROUP
from stokehold.cluster import wire
from stokehold.cluster.resources import INFERENCE_POOLS
from stokehold.model.snapshot import Autoscaler, Holidays, Namespace, PriorityClass


def read_namespace(raw: wire.Namespace) -> Namespace:
    """A namespace."""
    going = raw.status.phase == "Terminating" or raw.metadata.deletion_timestamp is not None
    return Namespace(raw.metadata.name, raw.metadata.labels, going, raw.metadata.uid)


def read_priority_class(raw: wire.PriorityClass) -> PriorityClass:
    """A PriorityClass."""
    return PriorityClass(raw.metadata.name, raw.value, raw.global_default, raw.preemption_policy != "Never")


def read_holidays(raw: wire.ConfigMap) -> Holidays:
    """The days off that a ConfigMap has as its keys."""
    days: set[date] = set()
    strange: list[str] = []
    for key in sorted(raw.data):
        try:
            days.add(date.fromisoformat(key))
        except ValueError:
            strange.append(key)
    return Holidays(frozenset(days), tuple(strange))


def read_autoscaler(raw: wire.Autoscaler) -> Autoscaler | None:
    """An autoscaler that scales one of our pools; None for all others, and for what is on its way out."""
    target = raw.spec.scale_target_ref
    ours = (target.kind, target.api_version.partition("/")[0]) == (INFERENCE_POOLS.kind, GROUP)
    if not ours or raw.metadata.deletion_timestamp is not None:
        return None
    can = any(one.type == "ScalingActive" and one.status == "True" for one in raw.status.conditions)
    return Autoscaler(raw.metadata.name, target.name, can or raw.status.last_scale_time is not None)
