"""What a worker asks of a node follows from the pod that would be created."""

from typing import Any

import pytest

from builders import a_job
from stokehold.model.demand import Demand, Match, demand_of, shaped_pod
from stokehold.model.taints import Taint, Toleration, tolerates


def demand(**spec: Any) -> Demand:
    return demand_of(a_job(**spec).spec)


def test_equal_jobs_have_equal_demands():
    one, other = demand(numNodes=2, gpuTypes=["h100"]), demand(numNodes=2, gpuTypes=["h100"])

    assert one == other
    assert hash(one) == hash(other)
    assert one != demand(numNodes=3, gpuTypes=["h100"])


def test_gang_needs_all_its_nodes_unless_it_is_elastic():
    assert (demand(numNodes=4).min_count, demand(numNodes=4, minNodes=2).min_count) == (4, 2)


def test_gpus_are_not_among_the_requests_since_their_name_depends_on_the_pool():
    assert demand(gpusPerNode=8, resources={"requests": {"cpu": "2"}}).requests == (("cpu", 2000), ("pods", 1))


def test_containers_of_the_template_are_counted():
    template = {"spec": {"containers": [{"name": "log", "image": "l", "resources": {"requests": {"cpu": "1"}}}]}}

    assert dict(demand(resources={"limits": {"cpu": "2"}}, podTemplate=template).requests)["cpu"] == 3000


def test_jobs_with_gpus_tolerate_the_taints_of_gpu_nodes_and_others_do_not():
    taint = (Taint("nvidia.com/gpu", "present", "NoSchedule"),)

    assert tolerates(demand(gpusPerNode=1).tolerations, taint)
    assert not tolerates(demand(gpusPerNode=0).tolerations, taint)


def test_template_tolerations_come_beside_those_for_gpus():
    template = {"spec": {"tolerations": [{"key": "team", "value": "a", "effect": "NoSchedule"}]}}

    keys = [toleration.key for toleration in demand(podTemplate=template).tolerations]

    assert keys == ["nvidia.com/gpu", "amd.com/gpu", "stokehold.dev/gpu", "team"]


def test_node_selector_and_one_affinity_term_must_hold():
    terms = [
        {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]},
        {"matchExpressions": [{"key": "net", "operator": "Exists"}]},
    ]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    wishes = demand(podTemplate={"spec": {"nodeSelector": {"zone": "a"}, "affinity": affinity}})

    assert wishes.accepts({"zone": "a", "disk": "ssd"})
    assert wishes.accepts({"zone": "a", "net": ""})
    assert not wishes.accepts({"zone": "a", "disk": "hdd"})
    assert not wishes.accepts({"disk": "ssd"})


@pytest.mark.parametrize(
    ("operator", "values", "on_4", "on_none"),
    [
        ("In", ("4", "5"), True, False),
        ("In", ("5",), False, False),
        ("NotIn", ("4",), False, True),
        ("NotIn", ("5",), True, True),
        ("Exists", (), True, False),
        ("DoesNotExist", (), False, True),
        ("Gt", ("3",), True, False),
        ("Gt", ("4",), False, False),
        ("Lt", ("5",), True, False),
        ("Lt", ("many",), False, False),
        ("Gt", (), False, False),
        ("Near", ("4",), False, False),
    ],
)
def test_affinity_operators_follow_kube_scheduler(operator: str, values: tuple, on_4: bool, on_none: bool):
    match = Match("key", operator, values)

    assert (match.holds({"key": "4"}), match.holds({})) == (on_4, on_none)


@pytest.mark.parametrize(
    ("toleration", "answers"),
    [
        (("gpu", "Equal", "a", "NoSchedule"), True),
        (("gpu", "Equal", "b", "NoSchedule"), False),
        (("gpu", "Exists", "", ""), True),
        (("gpu", "Exists", "", "NoExecute"), False),
        (("", "Exists", "", ""), True),
        (("", "Equal", "a", ""), False),
        (("cpu", "Exists", "", ""), False),
    ],
)
def test_tolerations_follow_kube_scheduler(toleration: tuple, answers: bool):
    assert Toleration(*toleration).answers(Taint("gpu", "a", "NoSchedule")) is answers


def test_preferred_taint_keeps_nobody_away():
    assert tolerates((), (Taint("gpu", "", "PreferNoSchedule"),))


def test_shaped_pod_leaves_the_spec_as_it_was():
    spec = a_job(podTemplate={"spec": {"containers": [{"name": "main", "tty": True}]}}).spec
    before = spec.model_dump()

    pod = shaped_pod(spec, spec.gpus_per_node, "Never")

    assert pod["spec"]["containers"][0]["tty"] is True
    assert spec.model_dump() == before
