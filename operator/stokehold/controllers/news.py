"""What is told by Events although no planner writes about it: objects that nobody can read, pods that will not die."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from stokehold.cluster.apply import Writes
from stokehold.cluster.manifests import Subject
from stokehold.cluster.own_kinds import Unreadable
from stokehold.controllers.fleet import is_stray
from stokehold.model.actions import Note
from stokehold.model.pods import Pod
from stokehold.model.reasons import Event
from stokehold.observability import metrics
from stokehold.planning.scheduling.queueing import is_corpse

INTERVAL_SECONDS = 2.0

News = tuple[Subject, Note]


@dataclass(frozen=True, slots=True)
class PodSubject:
    """A pod, as an Event names it."""

    namespace: str
    name: str
    uid: str
    resource_version: str = ""
    KIND: str = "Pod"


async def tell(read: Callable[[], Iterable[News]], writes: Writes) -> None:
    """One Event for each object and cause, until cancelled. Raises NotLeaderError when replaced."""
    while True:
        for about, note in list(read()):
            await writes.tell_once(about, note)
        await asyncio.sleep(INTERVAL_SECONDS)


def of_unreadable(found: Iterable[Unreadable]) -> Iterator[News]:
    """Objects that this version cannot read: no planner sees them."""
    for one in found:
        message = (
            f"this version of Stokehold cannot read it: {one.why}. It and its pods are left as they are. "
            "Change what is named, or run the version that it was written for."
        )
        yield one, Note(Event.UNREADABLE, message, f"unreadable {one.why}", warning=True)


def of_corpses(leaving: Iterable[Pod], now: datetime) -> Iterator[News]:
    """Pods of ours that should be gone for a while: the GPUs that they hold are nobody's to use."""
    for pod in leaving:
        if (pod.worker or pod.member) and pod.terminating_since and is_corpse(pod, now):
            held = ", ".join(f"{amount} {name}" for name, amount in pod.requests.items() if "/" in name)
            message = (
                f"pod {pod.name} on node {pod.node} should be gone since {pod.terminating_since:%Y-%m-%d %H:%M:%S} UTC"
                f"{f' and still holds {held}' if held else ''}. "
                "Look at the kubelet of that node, and at the finalizers of the pod."
            )
            yield _pod(pod), Note(Event.STILL_TERMINATING, message, "still terminating", warning=True)


def of_strays(strays: Iterable[Pod]) -> Iterator[News]:
    """Pods that somebody made by hand to look like workers: what they hold is counted, and nobody placed it."""
    for pod in strays:
        if is_stray(pod):
            message = (
                "it has the labels of a TrainingJob's worker, and no TrainingJob has made it: the queue has not placed "
                "it. What it requests is counted on its node; Stokehold neither adopts nor deletes it."
            )
            yield _pod(pod), Note(Event.NOT_OF_THE_QUEUE, message, "not of the queue", warning=True)


def _pod(pod: Pod) -> PodSubject:
    return PodSubject(pod.namespace, pod.name, pod.uid)


def count_unreadable(found: Iterable[Unreadable]) -> None:
    """The metric, by kind."""
    metrics.UNREADABLE.clear()
    for kind, number in Counter(one.KIND for one in found).items():
        metrics.UNREADABLE.labels(kind).set(number)
