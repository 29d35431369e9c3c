"""Who else has written a Deployment, from its managedFields. Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

from stokehold.cluster.wire import ManagedFields

REPLICAS = ("f:spec", "f:replicas")
TEMPLATE = ("f:spec", "f:template", "f:spec")
"""Not the template's annotations: `kubectl rollout restart` writes one, and is welcome."""

Path = tuple[str, ...]


def other_writer(managed: Iterable[ManagedFields], ours: str, under: Path) -> str:
    """The manager who alone has written something below this path; empty when nobody but us has.

    What both have written with the same value belongs to both, and is no quarrel.
    """
    leaves: dict[str, set[Path]] = {}
    for entry in managed:
        leaves.setdefault(entry.manager, set()).update(_leaves(_below(entry.fields, under)))
    own = leaves.pop(ours, set())
    return next((manager for manager, written in sorted(leaves.items()) if written - own), "")


def _below(fields: dict[str, Any], path: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = fields
    for step in path:
        if found is None:
            return None
        found = found.get(step)
    return found


def _leaves(fields: dict[str, Any] | None, path: Path = ()) -> Iterator[Path]:
    if fields is None:
        return
    children = {key: value for key, value in fields.items() if key != "."}
    if not children:
        yield path
    for key, value in children.items():
        yield from _leaves(value, (*path, key))
