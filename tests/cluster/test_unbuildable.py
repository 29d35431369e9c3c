"""What no manifest can be made of is its owner's to mend, and holds up nobody else."""

from typing import Any, cast

import pytest

from builders import NOW, a_serving_pool
from stokehold.cluster.apply import Applier
from stokehold.cluster.errors import InvalidError
from stokehold.cluster.snapshots import Cluster


async def fails() -> None:
    raise TypeError("list indices must be integers")


async def test_a_template_that_fits_no_pod_is_refused_and_told_and_any_other_fault_is_ours():
    cluster = Cluster(lambda: None, lambda: NOW)
    applier = Applier(cast("Any", None), cluster, lambda *_: None, lambda *_: None)
    strange, plain = a_serving_pool(podTemplate={"metadata": {"labels": {"a": "b"}}}), a_serving_pool()
    cluster.serving_pools.values[strange.key] = strange

    with pytest.raises(InvalidError, match="has another form"):
        await applier._create_for(strange, fails())
    with pytest.raises(TypeError):
        await applier._create_for(plain, fails())

    (told,) = cluster.snapshot().serving_pools.values()
    assert "spec.podTemplate" in told.create_error
