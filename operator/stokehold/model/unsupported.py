"""What a spec may ask for and this version does not do: each in one sentence with what happens instead. Pure.

A field that is stored and read by nobody would be a promise; its object's condition `Valid` says that it is not kept.
"""

from collections.abc import Iterator, Sequence

from stokehold.api import conditions
from stokehold.api.conditions import Condition, find_condition
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePoolSpec
from stokehold.api.v1alpha1.gpu_queue import GPUQueueSpec, Preemption
from stokehold.api.v1alpha1.training_job import TrainingJobSpec
from stokehold.model.reasons import Support
from stokehold.model.statuses import News

BUILT_PROVIDERS = ("webhook", "simulated")
EVEN_WEIGHT = 100


def in_job(spec: TrainingJobSpec) -> Iterator[str]:
    """What of a TrainingJob is not done."""
    if spec.expected_runtime is not None:
        yield "expectedRuntime is not used yet: jobs start by priority and age, whatever they expect"
    if spec.checkpoint is not None and spec.checkpoint.signal != "SIGTERM":
        yield (
            f"checkpoint.signal {spec.checkpoint.signal} is not sent yet: the program gets SIGTERM, "
            "or what its image names, and gracePeriod after it"
        )
    if spec.min_nodes is not None and spec.min_nodes < spec.num_nodes:
        yield "minNodes lets the job start smaller; one that runs is not made smaller yet, but started again"


def in_node_pool(spec: GPUNodePoolSpec) -> Iterator[str]:
    """What of a GPUNodePool is not done."""
    given = spec.provider.model_dump(by_alias=True, exclude_none=True) if spec.provider is not None else {}
    for name in given:
        if name not in BUILT_PROVIDERS:
            yield f"provider {name} is not built into this version: nothing is bought; use webhook"
    if spec.cost_model is not None:
        yield "costModel is not computed yet: use of the pool costs nothing; give it a price instead"
    if spec.carbon_intensity is not None:
        yield "carbonIntensity is not used yet: no emissions are told"


def in_queue(spec: GPUQueueSpec) -> Iterator[str]:
    """What of a GPUQueue is not done."""
    if spec.quotas:
        yield "quotas are not enforced yet: its work may use all GPUs that are free"
    if spec.parent is not None or spec.weight != EVEN_WEIGHT:
        yield "parent and weight are not used yet: no share is kept for anybody"
    if spec.preemption != Preemption():
        yield "preemption is not built yet: nothing that runs is stopped for waiting work"
    if spec.budget is not None:
        yield "budget is not enforced yet: nothing is held back however much is spent"


def validity(told: Sequence[Condition], missing: Iterator[str]) -> tuple[News, ...]:
    """The condition `Valid`, for those of whom something is not done, and those who were told so before."""
    wrong = "; ".join(missing)
    if wrong:
        return ((conditions.VALID, False, Support.NOT_SUPPORTED, wrong),)
    if find_condition(told, conditions.VALID) is not None:
        return ((conditions.VALID, True, Support.SUPPORTED, "all that the spec asks for is built"),)
    return ()
