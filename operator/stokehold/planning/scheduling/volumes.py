"""The volumes of what waits: whether they are there, and from where they can be reached. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from stokehold.api.names import FRESH_VOLUME_ANNOTATION
from stokehold.model import names
from stokehold.model.demand import Match, allows, may_hold
from stokehold.model.reasons import Waiting
from stokehold.model.snapshot import Job, Reach, Snapshot, Workspace
from stokehold.model.statuses import Owner
from stokehold.planning.placement.explain import Explanation

MOST_TOGETHER = 256
"""Ways in which volumes can be reached together that are told apart; beyond, nodes alone tell where all are reached."""


def wants_new_volume(workspace: Workspace) -> bool:
    """Whether it starts with an empty volume: for the first time, or because its owner has said that one will do."""
    if workspace.spec.storage is None or workspace.volume is not None:
        return False
    asked = workspace.annotations.get(FRESH_VOLUME_ANNOTATION) == names.volume_claim_name(workspace.name)
    return asked or workspace.status.start_time is None


def files_unavailable(workspace: Workspace) -> Explanation | None:
    """Never start on a dying volume, and never silently on a fresh one in place of one that had its files."""
    if workspace.spec.storage is None or wants_new_volume(workspace):
        return None
    name, volume = names.volume_claim_name(workspace.name), workspace.volume
    if volume is None:
        message = f"it has run before, and its volume claim {name} with its files is gone"
        step = f"Restore the claim, or annotate the workspace with {FRESH_VOLUME_ANNOTATION}={name} to start empty."
    elif volume.deleting:
        message = f"its volume claim {name} is being deleted"
        step = "Wait until it has gone; kubectl describe pvc says what holds it."
    elif volume.phase == "Lost":
        message = f"the volume behind its claim {name} is lost"
        step = f"Restore it, or delete the claim and annotate the workspace with {FRESH_VOLUME_ANNOTATION}={name}."
    else:
        return None
    return _unavailable(message, step)


def unusable(owner: Owner) -> Explanation | None:
    """Claims that its pods name and that are missing, dying or lost: nothing is held for a pod that cannot start."""
    for name, volume in owner.volumes:
        if volume is None:
            message, step = f"there is no volume claim {name}", "Create it, or name another one"
        elif volume.deleting:
            message = f"the volume claim {name} is being deleted"
            step = "Wait until it has gone (kubectl describe pvc says what holds it) and create it anew"
        elif volume.phase == "Lost":
            message, step = f"the volume behind claim {name} is lost", "Restore it, or name another claim"
        else:
            continue
        return _unavailable(message, f"{step}; it starts by itself then.")
    return None


def on_one_node(job: Job) -> str:
    """The first of its claims whose volume only one node at a time can have; empty without one."""
    return next((name for name, volume in job.volumes if volume is not None and volume.on_one_node), "")


def apart(owner: Owner, snapshot: Snapshot) -> Explanation | None:
    """No node reaches all of its volumes, and none that comes will: it would wait for ever."""
    if len(owner.reach) < 2 or not (_exclude_each_other(owner.reach) or _each_elsewhere(owner.reach, snapshot)):
        return None
    message = f"no node reaches all of its volumes: {'; '.join(_places(owner))}"
    step = "Move one of them, for example by a snapshot that is restored there, or take it out of spec.volumes."
    return _unavailable(message, step)


def _exclude_each_other(reach: Reach) -> bool:
    """Whether no node could reach all, whatever its labels: as with two zones. One place after the other, for what
    they allow together would multiply."""
    places = {frozenset(map(frozenset, terms)) for _, terms in reach}
    together: set[frozenset[Match]] = {frozenset()}
    for terms in sorted(places, key=len):
        both = {one | term for one in together for term in terms}
        together = {term for term in both if may_hold(term)}
        if not together:
            return True
        if len(together) > MOST_TOGETHER:
            return False
    return False


def _each_elsewhere(reach: Reach, snapshot: Snapshot) -> bool:
    """Whether each can be reached from some node that is there, and all from none."""
    nodes = snapshot.nodes.values()
    reached = [{claim for claim, terms in reach if allows(terms, node.labels)} for node in nodes]
    everything = {claim for claim, _ in reach}
    return everything not in reached and set().union(*reached) == everything


def with_volume(owner: Owner, why: Explanation) -> Explanation:
    """The reason with the places of its volumes, when they rule nodes out."""
    if not owner.reach or why.reason is Waiting.PROVISIONING:
        return why
    message = f"{why.message}; {'; '.join(_places(owner))}"
    return replace(why, message=message, next_step=f"It starts when GPUs are free there. {why.next_step}")


def _unavailable(message: str, step: str) -> Explanation:
    """What is to be done depends on the message, so each is told at once."""
    return Explanation(Waiting.VOLUME_UNAVAILABLE, message, step, urgent=message)


def _places(owner: Owner) -> Iterator[str]:
    for claim, terms in owner.reach:
        places = " or ".join(" and ".join(map(str, term)) for term in terms)
        yield f"volume claim {claim} can be reached from nodes with {places} alone"
