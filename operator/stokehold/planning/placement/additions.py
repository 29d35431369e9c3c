"""What was added to the requests of pods, in words for those whose spec does not say it. Pure."""

from dataclasses import replace

from stokehold.model.demand import Amounts
from stokehold.model.pods import Pod
from stokehold.model.snapshot import Snapshot
from stokehold.planning.placement.explain import Explanation

WHO = "a LimitRange of the namespace, a RuntimeClass or a webhook"


def outgrew(pod: Pod, added: Amounts, snapshot: Snapshot) -> bool:
    """Whether kube-scheduler refuses a pod because its node has not what was added: waiting for it is no use."""
    node = snapshot.nodes.get(pod.node)
    if node is None or pod.bound or pod.is_over or not pod.unschedulable:
        return False
    used = snapshot.used.get(pod.node, {})
    return any(used.get(name, 0) > node.allocatable.get(name, 0) for name, _ in added)


def told(added: Amounts) -> str:
    """What each pod asks for and who wants that."""
    return f"each of its pods asks for {' and '.join(map(_text, added))}, more than its spec says: {WHO} adds it"


def with_additions(added: Amounts, why: Explanation) -> Explanation:
    """The reason with what was added, where room is counted."""
    if not added or not why.unit:
        return why
    step = f"{why.next_step} spec.resources overrules the defaults of a LimitRange."
    return replace(why, message=f"{why.message}; {told(added)}", next_step=step)


def _text(amount: tuple[str, int]) -> str:
    name, number = amount
    if name == "cpu":
        return f"{number / 1000:g} CPU"
    if name in ("memory", "ephemeral-storage") or name.startswith("hugepages-"):
        return f"{number / 2**30:.1f} GiB of {name}"
    return f"{number} {name}"
