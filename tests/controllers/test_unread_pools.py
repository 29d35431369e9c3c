"""A GPUNodePool that cannot be read is told apart from one that is gone: what it has bought is left to it."""

import json
from typing import cast

import msgspec

from builders import NOW
from stokehold.cluster.client import KubeApi
from stokehold.cluster.snapshots import Cluster
from stokehold.controllers.watches import Watches


def stored(version: int, **spec: object) -> msgspec.Raw:
    defaults = {"provider": {"simulated": {}}, "gpuType": "h100", "gpusPerNode": 8, "limits": {"maxNodes": 8}}
    meta = {
        "name": "cloud",
        "uid": "u1",
        "resourceVersion": str(version),
        "generation": version,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return msgspec.Raw(json.dumps({"metadata": meta, "spec": {**defaults, **spec}}).encode())


def test_pool_that_was_never_read_is_unread_and_one_that_was_counts_as_it_was():
    cluster = Cluster(lambda: None, lambda: NOW)
    watches = Watches(cast(KubeApi, None), cluster)

    def known() -> tuple[list[str], list[str]]:
        snapshot = cluster.snapshot()
        return sorted(snapshot.node_pools), sorted(snapshot.unread_pools)

    watches.node_pools._take_object(stored(1, gpusPerNode="eight"))
    assert known() == ([], ["cloud"])
    watches.node_pools._take_object(stored(2))
    assert known() == (["cloud"], [])
    watches.node_pools._take_object(stored(3, gpusPerNode="eight"))
    assert known() == (["cloud"], [])
    watches.node_pools._store.take_deletion(("", "cloud"), "u1", 4)
    assert known() == ([], [])
