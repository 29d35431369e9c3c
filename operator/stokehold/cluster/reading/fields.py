"""Parts that several kinds have in common, and annotations that anybody may have written."""

from datetime import datetime

from stokehold.api.times import parse_time
from stokehold.cluster import wire


def is_true(condition: wire.Condition | None) -> bool:
    """Whether a condition is there and True."""
    return condition is not None and condition.status == "True"


def times_in(text: str) -> tuple[datetime, ...]:
    """The instants in an annotation that has spaces between them, without those that nobody can read."""
    return tuple(at for at in map(time_in, text.split()) if at is not None)


def count_in(text: str | None) -> int | None:
    """A number in an annotation; None when it is none."""
    return int(text) if text and text.isdecimal() and text.isascii() else None


def time_in(text: str | None) -> datetime | None:
    """An instant in an annotation; None when nobody can read it."""
    return parse_time(text) if text else None


def pinned_node(spec: wire.PodSpec) -> str:
    """The one node that a pod requires by name; empty when it requires none."""
    affinity = spec.affinity.node_affinity if spec.affinity else None
    terms = affinity.required.node_selector_terms if affinity and affinity.required else []
    for term in terms:
        for field in term.match_fields:
            if field.key == "metadata.name" and len(field.values) == 1:
                return field.values[0]
    return ""
