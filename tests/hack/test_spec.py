from pathlib import Path
from typing import Any

import pytest
from hack.cluster import ClusterSpec, SpecError
from hack.cluster.nodes import RACK_LABEL, nodes_of

CLUSTERS = Path("hack/clusters")
NOW = "2026-01-01T00:00:00Z"


def parse(**pool: Any) -> ClusterSpec:
    return ClusterSpec.parse({"pools": [{"name": "p", "nodes": 1} | pool]})


def first_node(spec: ClusterSpec) -> dict[str, Any]:
    return next(nodes_of(spec, NOW))


@pytest.mark.parametrize("path", sorted(CLUSTERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_description_is_read_back_as_it_was_written(path: Path) -> None:
    spec = ClusterSpec.load(path)

    assert ClusterSpec.parse(spec.document()) == spec


def test_demo_has_72_gpus_of_three_types() -> None:
    spec = ClusterSpec.load(CLUSTERS / "demo.yaml")

    assert (spec.gpus, len({pool.gpu for pool in spec.pools})) == (72, 3)


def test_nodes_carry_the_labels_of_gpu_feature_discovery() -> None:
    node = first_node(parse(gpu="h100", gpusPerNode=8))

    labels = node["metadata"]["labels"]
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    assert labels["nvidia.com/gpu.count"] == "8"
    assert labels["nvidia.com/gpu.family"] == "hopper"
    assert labels["nvidia.com/mig.strategy"] == "none"
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"


def test_racks_are_given_out_in_turn() -> None:
    nodes = nodes_of(parse(nodes=5, racks=["r1", "r1", "r2"]), NOW)

    racks = [node["metadata"]["labels"][RACK_LABEL] for node in nodes]

    assert racks == ["r1", "r1", "r2", "r1", "r1"]


def test_mixed_mig_keeps_whole_gpus_beside_slices() -> None:
    mig = {"strategy": "mixed", "gpus": 2, "profiles": {"1g.10gb": 14}}

    node = first_node(parse(gpu="h100", gpusPerNode=8, mig=mig))

    assert node["status"]["capacity"]["nvidia.com/gpu"] == "6"
    assert node["status"]["capacity"]["nvidia.com/mig-1g.10gb"] == "14"
    assert node["metadata"]["labels"]["nvidia.com/mig-1g.10gb.memory"] == "10240"


def test_single_mig_calls_its_slices_gpus() -> None:
    mig = {"strategy": "single", "profiles": {"1g.10gb": 56}}

    node = first_node(parse(gpu="h100", gpusPerNode=8, mig=mig))

    assert node["status"]["capacity"]["nvidia.com/gpu"] == "56"
    assert node["metadata"]["labels"]["nvidia.com/gpu.product"].endswith("-MIG-1g.10gb")


def test_node_without_gpus_has_no_gpu_labels() -> None:
    node = first_node(parse())

    assert not [label for label in node["metadata"]["labels"] if label.startswith("nvidia.com/")]
    assert "nvidia.com/gpu" not in node["status"]["capacity"]


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ({"gpu": "h900", "gpusPerNode": 8}, "h900 is not one of"),
        ({"gpu": "h100"}, "come together"),
        ({"gpusPerNode": 8}, "come together"),
        ({"nodes": -1}, "negative"),
        ({"rack": "r1"}, "unknown field rack"),
        ({"gpu": "h100", "gpusPerNode": 8, "mig": {"strategy": "x", "profiles": {}}}, "single or"),
        ({"gpu": "h100", "gpusPerNode": 2, "mig": {"strategy": "mixed", "profiles": {}, "gpus": 3}}, "mig.gpus"),
    ],
)
def test_description_that_cannot_be_meant_is_refused(pool: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(**pool)


def test_pool_names_are_unique() -> None:
    pool = {"name": "p", "nodes": 1}

    with pytest.raises(SpecError, match="p twice"):
        ClusterSpec.parse({"pools": [pool, pool]})


def test_leases_that_would_run_out_are_refused() -> None:
    with pytest.raises(SpecError, match="leaseSeconds"):
        ClusterSpec.parse({"pools": [], "leaseSeconds": 200})
