"""What is said of work that does not fit: in the words of its own kind, with fields that its owner has."""

import re
from typing import Any

import pytest

from builders import a_node, a_pool, a_snapshot
from stokehold.api.v1alpha1.dev_workspace import DevWorkspaceSpec
from stokehold.api.v1alpha1.inference_pool import InferencePoolSpec
from stokehold.api.v1alpha1.training_job import TrainingJobSpec
from stokehold.model.demand import Demand, demand_of, replica_demand, workspace_demand
from stokehold.planning.placement.explain import Explanation, explain
from stokehold.planning.placement.ledger import Ledger
from stokehold.planning.placement.place import shortfall
from stokehold.planning.placement.pools import resolve_pools

JOB: dict[str, Any] = {"image": "x"}
POOL: dict[str, Any] = {"image": "x", "replicas": {"max": 2}}
KINDS = {
    "TrainingJob": (TrainingJobSpec, demand_of, JOB, "gpusPerNode", "worker"),
    "DevWorkspace": (DevWorkspaceSpec, workspace_demand, JOB, "gpus", "workspace"),
    "InferencePool": (InferencePoolSpec, replica_demand, POOL, "gpusPerReplica", "replica"),
}


def told(kind: str, demand: Demand, used: int = 0) -> Explanation:
    """Why it does not fit on one node of eight GPUs, of which so many are taken."""
    node = a_node(labels={"pool": "h100"})
    usage = {node.name: {"nvidia.com/gpu": used}}
    snapshot = a_snapshot([node], used=usage, node_pools=[a_pool("h100")])
    pools = resolve_pools(snapshot)
    return explain(shortfall(Ledger(snapshot, pools, [demand]), demand), pools, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ask", [{"gpus": 16}, {"gpus": 4, "used": 6}, {"gpus": 1, "type": "none-such"}])
def test_advice_names_fields_of_the_readers_kind(kind: str, ask: dict[str, Any]):
    spec, demand_of_spec, fields, gpus, _ = KINDS[kind]
    types = {"gpuTypes": [ask["type"]]} if "type" in ask else {}
    demand = demand_of_spec(spec.model_validate({**fields, gpus: ask["gpus"], **types}))

    step = told(kind, demand, ask.get("used", 0)).next_step

    named = [path.split(".") for path in re.findall(r"spec\.([A-Za-z]+(?:\.[A-Za-z]+)*)", step)]
    properties = spec.model_json_schema(by_alias=True)["properties"]
    assert named
    assert [path[0] for path in named if path[0] not in properties] == []


@pytest.mark.parametrize("kind", KINDS)
def test_message_calls_it_what_its_owner_does(kind: str):
    spec, demand_of_spec, fields, gpus, noun = KINDS[kind]
    demand = demand_of_spec(spec.model_validate({**fields, gpus: 4}))

    why = told(kind, demand, used=6)

    assert why.message.startswith(f"needs room for 1 {noun} of 4 GPUs; pool h100 has room for 0 now")
    assert (why.requested, why.available, why.unit) == (4, 0, "GPUs")
