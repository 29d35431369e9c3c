"""What our workspaces and serving pools have made for them: StatefulSets, Deployments, Services, budgets."""

from collections.abc import Callable, Iterator, Mapping

from stokehold.api.names import GROUP
from stokehold.cluster import wire
from stokehold.cluster.annotations import (
    GPU_COUNT,
    GPU_RESOURCE,
    REFUSED_BY,
    TEMPLATE,
    TERM,
    UNDONE_AT,
    WANTED_BY,
    WRITTEN_REPLICAS,
)
from stokehold.cluster.ownership import REPLICAS, other_writer
from stokehold.cluster.ownership import TEMPLATE as TEMPLATE_SPEC
from stokehold.cluster.reading.fields import count_in, is_true, pinned_node, time_in, times_in
from stokehold.cluster.resources import DEV_WORKSPACES, FIELD_MANAGER, INFERENCE_POOLS, TRAINING_JOBS
from stokehold.model import names
from stokehold.model.kubelets import Refusal
from stokehold.model.pods import PodSet

CHILD_NAMES = {INFERENCE_POOLS.kind: names.serving_name, DEV_WORKSPACES.kind: names.workspace_name}
"""How the one StatefulSet, Deployment, Service and budget of an owner is called."""
SERVICE_NAMES = {**CHILD_NAMES, TRAINING_JOBS.kind: names.service_name}


def read_pod_set(raw: wire.PodSet) -> PodSet | None:
    """A StatefulSet or Deployment of ours; None for a copy under another name, which takes labels and owner along."""
    meta = raw.metadata
    owner = _owner_of_child(meta, CHILD_NAMES)
    if owner is None:
        return None
    return PodSet(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        owner_uid=owner,
        replicas=raw.spec.replicas,
        ready_replicas=raw.status.ready_replicas,
        current_replicas=raw.status.replicas,
        updated_replicas=raw.status.updated_replicas,
        problem=next((c.message for c in raw.status.conditions if c.type == "ReplicaFailure" and is_true(c)), ""),
        paused=raw.spec.paused,
        node=pinned_node(raw.spec.template.spec),
        template=meta.annotations.get(TEMPLATE, ""),
        gpu_resource=meta.annotations.get(GPU_RESOURCE, ""),
        term=count_in(meta.annotations.get(TERM)) or 0,
        wanted_by=count_in(meta.annotations.get(WANTED_BY)) or 0,
        gpus=count_in(meta.annotations.get(GPU_COUNT)),
        written_replicas=count_in(meta.annotations.get(WRITTEN_REPLICAS)),
        refusals=tuple(_refusals(meta.annotations.get(REFUSED_BY, ""))),
        undone_at=times_in(meta.annotations.get(UNDONE_AT, "")),
        replicas_writer=other_writer(meta.managed_fields, FIELD_MANAGER, REPLICAS),
        template_writer=other_writer(meta.managed_fields, FIELD_MANAGER, TEMPLATE_SPEC),
    )


def child_reader(label: str) -> Callable[[wire.Child], str | None]:
    """Of Services and budgets with this label: the uid of their owner, None for what is nobody's.

    The label is looked at although the watch selects by it: what we write comes to the watches of all labels.
    One on its way out is there until it is gone: before that nobody can make another of its name.
    """

    def read(raw: wire.Child) -> str | None:
        return _owner_of_child(raw.metadata, SERVICE_NAMES) if label in raw.metadata.labels else None

    return read


def _owner_of_child(meta: wire.Metadata, called: Mapping[str, Callable[[str], str]]) -> str | None:
    """The uid of the object of ours whose child has this very name; `called` makes it of the owner's, by kind."""
    ref = next((ref for ref in meta.owner_references if ref.controller), None)
    ours = ref is not None and ref.api_version.partition("/")[0] == GROUP
    if ref is None or not ours or ref.kind not in called or called[ref.kind](ref.name) != meta.name:
        return None
    return ref.uid


def _refusals(text: str) -> Iterator[Refusal]:
    for part in text.split():
        node, _, at = part.rpartition("=")
        time = time_in(at)
        if node and time is not None:
            yield Refusal(node, time)
