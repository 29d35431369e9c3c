"""What a spec asks for in vain stands in the condition `Valid` of its object, as long as it is asked for."""

from dataclasses import replace

import pytest

from builders import NOW, a_job, a_node, a_pool, a_queue, a_snapshot
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePoolStatus
from stokehold.api.v1alpha1.gpu_queue import GPUQueueStatus
from stokehold.model.actions import AdmitJob, WriteStatus
from stokehold.model.snapshot import Namespace, Snapshot
from stokehold.planning.provisioning.plan import plan_provisioning
from stokehold.planning.provisioning.settings import ProvisioningSettings
from stokehold.planning.scheduling.plan import plan_scheduling
from stokehold.planning.scheduling.settings import SchedulingSettings

TEAM_A = Namespace("team-a", {})


def scheduled(snapshot: Snapshot) -> list[object]:
    return list(plan_scheduling(snapshot, SchedulingSettings()))


def validity(action: object) -> tuple[str, str, str]:
    assert isinstance(action, WriteStatus)
    found = next(c for c in action.status["conditions"] if c["type"] == "Valid")
    return found["status"], found["reason"], found["message"]


def test_queue_whose_quotas_nobody_enforces_says_so_once_and_until_they_go():
    asks = a_queue(quotas=[{"gpuType": "h100", "nominal": 8}])

    (told,) = scheduled(a_snapshot(queues=[asks]))
    after = replace(asks, status=GPUQueueStatus.model_validate(told.status))

    assert (told.status["phase"], validity(told)[:2]) == ("Active", ("False", "NotSupportedYet"))
    assert "quotas are not enforced yet" in validity(told)[2]
    assert scheduled(a_snapshot(queues=[after])) == []
    (well,) = scheduled(a_snapshot(queues=[replace(after, spec=a_queue().spec, generation=2)]))
    assert validity(well)[0] == "True"


def test_job_is_told_beside_why_it_waits_and_other_jobs_have_no_such_condition():
    asks, plain = a_job("asks", numNodes=9, expectedRuntime="1h"), a_job("plain", numNodes=9)

    first, second = scheduled(a_snapshot([a_node(gpus=1)], [asks, plain]))

    assert validity(first)[:2] == ("False", "NotSupportedYet")
    assert [c["type"] for c in second.status["conditions"]] == ["QuotaReserved"]


def test_node_pool_says_that_its_cost_model_is_not_computed():
    cost = {"currency": "EUR", "capexPerNode": "1", "maxPowerWatts": 1, "electricityPerKwh": "0.1"}
    pool = a_pool(costModel=cost)

    (told,) = plan_provisioning(a_snapshot(node_pools=[pool]), ProvisioningSettings())
    after = replace(pool, status=GPUNodePoolStatus.model_validate(told.status))

    assert validity(told)[:2] == ("False", "NotSupportedYet")
    assert list(plan_provisioning(a_snapshot(node_pools=[after]), ProvisioningSettings())) == []


@pytest.mark.parametrize(
    ("given", "admitted"), [("public", True), ("restricted", False), (None, False)], ids=["listed", "other", "unknown"]
)
def test_queue_takes_only_jobs_of_the_data_classes_that_it_lists(given: str | None, admitted: bool):
    queue = a_queue(dataClasses=["public", "internal"])
    job = a_job(**({"dataClass": given} if given else {}))

    (action,) = scheduled(a_snapshot([a_node()], [job], queues=[queue], namespaces=[TEAM_A], taken_at=NOW))

    assert isinstance(action, AdmitJob if admitted else WriteStatus)
    if not admitted:
        assert action.status["queue"]["reason"] == "Misconfigured"
        assert "it takes public, internal" in action.status["queue"]["message"]
