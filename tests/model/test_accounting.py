"""Requests are counted as kube-scheduler counts them, whatever the pod is made of."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stokehold.model.accounting import LARGEST, POD_SLOT, amounts, requests_of, total


def asking(**requests: str) -> dict[str, Any]:
    return {"resources": {"requests": requests}}


def a_sidecar(**requests: str) -> dict[str, Any]:
    return {**asking(**requests), "restartPolicy": "Always"}


def test_containers_add_up_and_the_pod_takes_one_slot():
    pod = {"containers": [asking(cpu="1500m", memory="1Gi"), asking(cpu="1")]}

    assert requests_of(pod) == {"cpu": 2500, "memory": 2**30, POD_SLOT: 1}


def test_pod_without_requests_takes_only_its_slot():
    assert requests_of({"containers": [{}]}) == {POD_SLOT: 1}


def test_init_container_counts_only_where_it_needs_more_than_the_containers():
    pod = {"containers": [asking(cpu="1", memory="4Gi")], "initContainers": [asking(cpu="3", memory="1Gi")]}

    assert requests_of(pod) == {"cpu": 3000, "memory": 4 * 2**30, POD_SLOT: 1}


def test_init_containers_run_one_after_the_other():
    pod = {"containers": [asking(cpu="1")], "initContainers": [asking(cpu="3"), asking(cpu="2")]}

    assert requests_of(pod)["cpu"] == 3000


def test_sidecars_run_beside_the_containers():
    pod = {"containers": [asking(cpu="1")], "initContainers": [a_sidecar(cpu="1"), a_sidecar(cpu="1")]}

    assert requests_of(pod)["cpu"] == 3000


def test_init_container_runs_beside_the_sidecars_before_it_alone():
    before = {"containers": [{}], "initContainers": [a_sidecar(cpu="1"), asking(cpu="5")]}
    after = {"containers": [{}], "initContainers": [asking(cpu="5"), a_sidecar(cpu="1")]}

    assert requests_of(before)["cpu"] == 6000
    assert requests_of(after)["cpu"] == 5000


def test_limit_without_request_is_a_request():
    pod = {"containers": [{"resources": {"limits": {"cpu": "4", "nvidia.com/gpu": "2"}, "requests": {"cpu": "1"}}}]}

    assert requests_of(pod) == {"cpu": 1000, "nvidia.com/gpu": 2, POD_SLOT: 1}


def test_pod_level_request_replaces_the_sum_of_that_resource_alone():
    pod = {"resources": {"requests": {"cpu": "8"}}, "containers": [asking(cpu="1", memory="1Gi")]}

    assert requests_of(pod) == {"cpu": 8000, "memory": 2**30, POD_SLOT: 1}


def test_pod_level_limit_counts_only_for_what_no_container_asks_for():
    pod = {"resources": {"limits": {"cpu": "8", "memory": "8Gi"}}, "containers": [asking(cpu="1")]}

    assert requests_of(pod) == {"cpu": 1000, "memory": 8 * 2**30, POD_SLOT: 1}


def test_overhead_comes_on_top_of_everything():
    pod = {"resources": {"requests": {"cpu": "2"}}, "containers": [{}], "overhead": {"cpu": "250m"}}

    assert requests_of(pod)["cpu"] == 2250


def test_null_resources_are_no_resources():
    pod = {"resources": None, "containers": [{"resources": None}, {"resources": {"requests": None, "limits": None}}]}

    assert requests_of(pod) == {POD_SLOT: 1}


def test_numbers_that_nobody_meant_stay_inside_64_bits():
    pod = {"containers": [asking(memory="9223372036854775807")] * 3, "overhead": {"memory": "1e400"}}

    assert requests_of(pod)["memory"] == LARGEST


@pytest.mark.parametrize("name", ["nvidia.com/vgpu", "nvidia.com/gpu.shared", "amd.com/gpu"])
def test_resources_that_sound_alike_are_counted_apart(name: str):
    assert amounts({name: "80", "nvidia.com/gpu": "8"}) == {name: 80, "nvidia.com/gpu": 8}


containers = st.lists(st.dictionaries(st.sampled_from(["cpu", "memory"]), st.integers(0, 9).map(str)), max_size=4)


@given(containers, containers, st.lists(st.booleans(), min_size=4, max_size=4))
def test_count_never_depends_on_order_of_containers_and_covers_every_moment(run: list, init: list, kinds: list):
    inits = [a_sidecar(**one) if kind else asking(**one) for one, kind in zip(init, kinds, strict=False)]
    pod = {"containers": [asking(**one) for one in run], "initContainers": inits}

    counted = requests_of(pod)

    assert counted == requests_of({**pod, "containers": pod["containers"][::-1]})
    sidecars = [one for one in inits if "restartPolicy" in one]
    moments = [[*pod["containers"], *sidecars]]
    moments += [[*(s for s in inits[:at] if "restartPolicy" in s), one] for at, one in enumerate(inits)]
    for resource in ("cpu", "memory"):
        needs = [total(amounts(c["resources"]["requests"]) for c in moment).get(resource, 0) for moment in moments]
        assert counted.get(resource, 0) == max(needs)
