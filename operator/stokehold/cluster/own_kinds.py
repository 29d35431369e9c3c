"""One object of our own kinds -> one value of the model, and the records that we keep in its annotations. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from stokehold.api.names import (
    FINISHED_ANNOTATION,
    KEY_PREFIX,
    STOPPED_ANNOTATION,
)
from stokehold.api.times import plausible_time
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.gpu_node import GPUNode
from stokehold.api.v1alpha1.gpu_node_claim import GPUNodeClaim
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePool
from stokehold.api.v1alpha1.gpu_queue import GPUQueue
from stokehold.api.v1alpha1.inference_pool import InferencePool
from stokehold.api.v1alpha1.providers import Provider
from stokehold.api.v1alpha1.training_job import FAILED, SUCCEEDED, TrainingJob, TrainingJobStatus
from stokehold.cluster import wire
from stokehold.cluster.annotations import PROVIDER
from stokehold.cluster.nesting import DEEPEST, is_nested_deeper
from stokehold.model.demand import claims_of, demand_of, replica_demand, shape_of, workspace_demand
from stokehold.model.snapshot import Claim, Job, NodePool, Proof, Queue, ServingPool, Sighting, StopRecord, Workspace

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNKNOWN_NODE = {"gpuType": "unknown", "gpusPerNode": 1, "capacityClass": "on-demand"}
"""Stands for what cannot be read of a claim that is to go."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object of ours that exists but cannot be understood: it and its pods are left alone."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    why: str
    KIND: str = "TrainingJob"


class ProofText(msgspec.Struct, rename="camel"):
    """The JSON of the annotation that proves a job's end."""

    outcome: str
    attempt: int
    restarts: int
    completion_time: datetime
    reason: str = ""
    message: str = ""
    job: str = ""
    """The name of the job that has ended: a manifest that is copied under another name takes its annotations along."""


class StopText(msgspec.Struct, rename="camel"):
    """The JSON of the annotation that says why a workspace was stopped."""

    reason: str
    message: str
    time: datetime


def read_job(raw: wire.OwnKind, known: "Job | Unreadable | None" = None) -> "Job | Unreadable":
    """A TrainingJob without its pods; the spec of `known`, the value read before, is taken over if it is the same."""
    meta = raw.metadata
    try:
        status = _status(raw.status) if _is_same(known, meta) else None
        if isinstance(known, Job) and status is not None:
            spec, demand, claims, shape = known.spec, known.demand, known.claims, known.shape
        else:
            parsed = TrainingJob.read(_document("TrainingJob", raw))
            spec, status = parsed.spec, parsed.status or TrainingJobStatus()
            demand, claims, shape = demand_of(spec), claims_of(spec), shape_of(spec)
    except ValueError as error:
        return Unreadable(meta.namespace, meta.name, meta.uid, meta.resource_version, _first_line(error))
    return Job(
        **_identity(meta),
        spec=spec,
        status=status,
        demand=demand,
        shape=shape,
        claims=claims,
        proof=_proof(meta, status),
    )


def read_queue(raw: wire.OwnKind) -> Queue:
    """A GPUQueue; raises ValueError when it cannot be understood."""
    parsed = GPUQueue.read(_document("GPUQueue", raw))
    return Queue(**_identity(raw.metadata), spec=parsed.spec, status=parsed.status)


def read_node_pool(raw: wire.OwnKind) -> NodePool:
    """A GPUNodePool; raises ValueError when it cannot be understood."""
    parsed = GPUNodePool.read(_document("GPUNodePool", raw))
    return NodePool(**_identity(raw.metadata), spec=parsed.spec, status=parsed.status)


def read_workspace(raw: wire.OwnKind) -> Workspace:
    """A DevWorkspace without its pods; raises ValueError when it cannot be understood."""
    parsed = DevWorkspace.read(_document("DevWorkspace", raw))
    ours = {key: value for key, value in raw.metadata.annotations.items() if key.startswith(KEY_PREFIX)}
    return Workspace(
        **_identity(raw.metadata),
        spec=parsed.spec,
        status=parsed.status,
        demand=workspace_demand(parsed.spec),
        shape=shape_of(parsed.spec),
        claims=claims_of(parsed.spec),
        annotations=ours,
        stop_record=_stop_record(ours),
    )


def read_serving_pool(raw: wire.OwnKind) -> ServingPool:
    """An InferencePool without its pods; raises ValueError when it cannot be understood."""
    parsed = InferencePool.read(_document("InferencePool", raw))
    return ServingPool(
        **_identity(raw.metadata),
        spec=parsed.spec,
        status=parsed.status,
        demand=replica_demand(parsed.spec),
        claims=claims_of(parsed.spec),
    )


def read_claim(raw: wire.OwnKind) -> Claim:
    """A GPUNodeClaim; raises ValueError when it cannot be understood.

    One that is being deleted needs no more than its pool's name: its machine was asked for under its uid.
    """
    try:
        parsed = GPUNodeClaim.read(_document("GPUNodeClaim", raw))
    except ValueError:
        if raw.metadata.deletion_timestamp is None:
            raise
        left = {**UNKNOWN_NODE, "poolName": raw.spec.get("poolName")}
        parsed = GPUNodeClaim.read({**_document("GPUNodeClaim", raw), "spec": left})
    return Claim(
        **_identity(raw.metadata),
        provider=_provider(raw.metadata),
        spec=parsed.spec,
        status=parsed.status,
        finalizers=tuple(raw.metadata.finalizers),
        deleting_since=raw.metadata.deletion_timestamp,
    )


def read_sighting(raw: wire.OwnKind) -> Sighting:
    """A GPUNode; raises ValueError when it cannot be understood."""
    return Sighting(**_identity(raw.metadata), status=GPUNode.read(_document("GPUNode", raw)).status)


def _identity(meta: wire.Metadata) -> dict[str, Any]:
    return {
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resource_version": meta.resource_version,
        "generation": meta.generation,
        "created_at": meta.creation_timestamp or EPOCH,
        "deleting": meta.deletion_timestamp is not None,
    }


def _document(kind: str, raw: wire.OwnKind) -> dict[str, Any]:
    if is_nested_deeper(raw.spec, DEEPEST) or is_nested_deeper(raw.status, DEEPEST):
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    return {"kind": kind, "metadata": {"name": raw.metadata.name}, "spec": raw.spec, "status": raw.status}


def _is_same(known: Job | Unreadable | None, meta: wire.Metadata) -> bool:
    return isinstance(known, Job) and known.uid == meta.uid and known.generation == meta.generation


def _status(raw: Mapping[str, Any]) -> TrainingJobStatus | None:
    """The status; None when a part of it is strange, and must be left out with more care."""
    try:
        return TrainingJobStatus.model_validate(raw, extra="ignore")
    except ValueError:
        return None


def _first_line(error: ValueError) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines()[1:3]) or str(error)


def _proof(meta: wire.Metadata, status: TrainingJobStatus) -> Proof | None:
    text = meta.annotations.get(FINISHED_ANNOTATION)
    if text is None:
        return None
    try:
        read = msgspec.json.decode(text, type=ProofText)
    except (msgspec.MsgspecError, RecursionError):
        read = None
    at = plausible_time(read.completion_time) if read is not None else None
    if read is None or at is None:
        # An annotation that nobody can read still says that the job has ended: never run it again.
        outcome = status.phase if status.phase in (SUCCEEDED, FAILED) else FAILED
        told = "the annotation that proves the end cannot be read"
        at = status.completion_time or EPOCH
        return Proof(outcome, status.attempt or 1, status.restarts or 0, at, "Unreadable", told)
    if read.job not in ("", meta.name):
        return None
    return Proof(read.outcome, read.attempt, read.restarts, at, read.reason, read.message)


def proof_text(proof: Proof, job: str) -> str:
    """The annotation's value for the proof of the job of this name; `read_job` reads it back."""
    text = ProofText(proof.outcome, proof.attempt, proof.restarts, proof.completed_at, proof.reason, proof.message, job)
    return msgspec.json.encode(text).decode()


def _provider(meta: wire.Metadata) -> Provider | None:
    text = meta.annotations.get(PROVIDER)
    try:
        return Provider.model_validate_json(text, extra="ignore") if text else None
    except ValueError:
        return None


def _stop_record(annotations: Mapping[str, str]) -> StopRecord | None:
    try:
        read = msgspec.json.decode(annotations[STOPPED_ANNOTATION], type=StopText)
    except (KeyError, msgspec.MsgspecError, RecursionError):
        return None
    at = plausible_time(read.time)
    return StopRecord(read.reason, read.message, at) if at is not None else None


def stop_text(record: StopRecord) -> str:
    """The annotation's value for a stop; `read_workspace` reads it back."""
    return msgspec.json.encode(StopText(record.reason, record.message, record.time)).decode()
