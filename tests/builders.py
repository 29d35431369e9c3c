"""Values of the model with boring defaults; what a test is about comes as keywords."""

from datetime import UTC, datetime, timedelta
from typing import Any

from stokehold.api.v1alpha1.training_job import TrainingJobSpec, TrainingJobStatus
from stokehold.model.demand import demand_of
from stokehold.model.snapshot import Job, Node, Snapshot

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GPU = "nvidia.com/gpu"


def a_node(name: str = "n1", *, gpus: int = 8, **fields: Any) -> Node:
    amounts = {GPU: gpus, "cpu": 96_000, "memory": 2**39, "pods": 110}
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", **fields.pop("labels", {})}
    return Node(name=name, labels=labels, capacity=amounts, allocatable=amounts, **fields)


def a_job(name: str = "job", *, age: int = 60, status: dict[str, Any] | None = None, **spec: Any) -> Job:
    parsed = TrainingJobSpec.model_validate({"image": "x", **spec})
    return Job(
        namespace="team-a",
        name=name,
        uid=f"uid-{name}",
        resource_version="1",
        generation=1,
        created_at=NOW - timedelta(seconds=age),
        spec=parsed,
        status=TrainingJobStatus.model_validate(status or {}),
        demand=demand_of(parsed),
    )


def a_snapshot(nodes: list[Node], jobs: list[Job], used: dict[str, dict[str, int]] | None = None) -> Snapshot:
    return Snapshot(
        taken_at=NOW,
        nodes={node.name: node for node in nodes},
        used=used or {},
        jobs={job.key: job for job in jobs},
    )
