"""What is not built yet is told, and nothing else is."""

import pytest

from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePoolSpec
from stokehold.api.v1alpha1.gpu_queue import GPUQueueSpec
from stokehold.api.v1alpha1.training_job import TrainingJobSpec
from stokehold.model.unsupported import in_job, in_node_pool, in_queue

JOB = {"image": "x"}
POOL = {"gpuType": "h100", "gpusPerNode": 8, "limits": {"maxNodes": 1}}
COST = {"currency": "EUR", "capexPerNode": "1", "maxPowerWatts": 1, "electricityPerKwh": "0.1"}
BUDGET = {"amount": "1", "currency": "EUR"}


@pytest.mark.parametrize(
    ("find", "spec", "field"),
    [
        (in_job, TrainingJobSpec.model_validate({**JOB, "expectedRuntime": "1h"}), "expectedRuntime"),
        (in_job, TrainingJobSpec.model_validate({**JOB, "checkpoint": {"signal": "SIGUSR1"}}), "checkpoint.signal"),
        (in_job, TrainingJobSpec.model_validate({**JOB, "numNodes": 2, "minNodes": 1}), "minNodes"),
        (in_node_pool, GPUNodePoolSpec.model_validate({**POOL, "provider": {"aws": {"autoScalingGroup": "a"}}}), "aws"),
        (in_node_pool, GPUNodePoolSpec.model_validate({**POOL, "nodeSelector": {"a": "b"}, "costModel": COST}), "cost"),
        (
            in_node_pool,
            GPUNodePoolSpec.model_validate({**POOL, "nodeSelector": {"a": "b"}, "carbonIntensity": 1}),
            "carbonIntensity",
        ),
        (in_queue, GPUQueueSpec.model_validate({"quotas": [{"gpuType": "h100", "nominal": 8}]}), "quotas"),
        (in_queue, GPUQueueSpec.model_validate({"parent": "all"}), "parent"),
        (in_queue, GPUQueueSpec.model_validate({"weight": 200}), "weight"),
        (in_queue, GPUQueueSpec.model_validate({"preemption": {"reclaim": "Never"}}), "preemption"),
        (in_queue, GPUQueueSpec.model_validate({"budget": BUDGET}), "budget"),
    ],
)
def test_each_field_that_nothing_is_done_with_is_told(find, spec, field):
    (told,) = find(spec)

    assert field in told


@pytest.mark.parametrize(
    ("find", "spec"),
    [
        (in_job, TrainingJobSpec.model_validate({**JOB, "numNodes": 2, "minNodes": 2, "checkpoint": {}})),
        (in_node_pool, GPUNodePoolSpec.model_validate({**POOL, "provider": {"simulated": {}}})),
        (in_node_pool, GPUNodePoolSpec.model_validate({"gpuType": "h100", "nodeSelector": {"a": "b"}})),
        (in_queue, GPUQueueSpec.model_validate({"namespaces": {}, "dataClasses": ["public"]})),
        (in_queue, GPUQueueSpec.model_validate({"weight": 100, "preemption": {"reclaim": "Any"}})),
    ],
)
def test_what_is_built_or_left_at_its_default_is_not_told(find, spec):
    assert list(find(spec)) == []
