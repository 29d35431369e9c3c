"""What the status of a serving pool says: built whole from the recorded one and from what has been decided. Pure.

Numbers that always move, such as the load, stand only in decisions: a condition that had them would be a write at
each reading.
"""

from datetime import datetime

from stokehold.api import conditions
from stokehold.api.names import SERVING_LABEL
from stokehold.api.v1alpha1.inference_pool import Decision, InferencePoolStatus
from stokehold.api.v1alpha1.shared import QueueStatus
from stokehold.model import names, reasons
from stokehold.model.pods import Pod, PodSet
from stokehold.model.snapshot import ServingPool
from stokehold.model.statuses import News, told_conditions, whole
from stokehold.planning.autoscaling.contention import Contention
from stokehold.planning.autoscaling.deciding import Verdict
from stokehold.planning.autoscaling.shaping import not_supported
from stokehold.planning.placement.refusals import refusal

REMEMBERED_DECISIONS = 10
NO_PODS = PodSet("", "", "", "", "", 0)


def status_of(
    pool: ServingPool, verdict: Verdict, obstacle: str, quarrel: Contention | None, now: datetime
) -> InferencePoolStatus:
    """The status as it should be; equal to the recorded one when there is nothing new to tell."""
    pods, had = pool.pod_set or NO_PODS, pool.status
    news = [_ready(pool, verdict, obstacle), _fresh(verdict), _active(quarrel), _valid(pool)]
    update = {
        "observed_generation": pool.generation,
        "phase": _phase(pool, verdict),
        "replicas": pods.current_replicas,
        "ready_replicas": pods.ready_replicas,
        "desired_replicas": verdict.replicas,
        "selector": f"{SERVING_LABEL}={names.label_value(pool.name)}",
        "scale_down": verdict.scale_down,
    }
    if verdict.reason is not None:
        decision = Decision(
            time=whole(now), replicas=verdict.replicas, reason=str(verdict.reason), message=verdict.message
        )
        update["decisions"] = (*had.decisions, decision)[-REMEMBERED_DECISIONS:]
    if not any(pod.gated for pod in pool.pods):
        update["queue"] = _refused(pool)
        news.append(_placed(pool))
    update["conditions"] = told_conditions(pool, now, *news)
    return had.model_copy(update=update)


def _ready(pool: ServingPool, verdict: Verdict, obstacle: str) -> News:
    pods = pool.pod_set or NO_PODS
    paused = f"the Deployment is paused: kubectl rollout resume deployment {pods.name}" if pods.paused else ""
    stuck = next((f"pod {pod.name}: {pod.trouble}" for pod in pool.pods if pod.trouble and not pod.ready), "")
    trouble = obstacle or pool.create_error or pods.problem or paused or stuck
    behind = f"; {trouble}" if trouble else ""
    if not verdict.replicas and not trouble:
        return (conditions.READY, True, reasons.Serving.ASLEEP, "no replica is wanted")
    least = max(1, pool.spec.replicas.min)
    told = f"{pods.ready_replicas} of {verdict.replicas} replicas are ready"
    if pods.ready_replicas >= min(least, verdict.replicas or 1):
        return (conditions.READY, True, reasons.Serving.ENOUGH_READY, f"{told}{behind}")
    return (conditions.READY, False, reasons.Serving.NOT_ENOUGH_READY, f"{told}{behind}")


def _refused(pool: ServingPool) -> QueueStatus | None:
    """Why it has no Deployment, or not the one that its spec asks for; None when nothing was refused."""
    why = refusal(pool)
    if why is None:
        return None
    return QueueStatus(reason=str(why.reason), message=why.message, next_step=why.next_step)


def _fresh(verdict: Verdict) -> News:
    measured = verdict.measured
    return (conditions.METRICS_FRESH, measured.fresh, measured.reason, measured.message)


def _active(quarrel: Contention | None) -> News:
    """While somebody is merely undone there is nothing to tell: a moment later it is as it should be."""
    if quarrel is not None and quarrel.stands_back:
        return (conditions.SCALING_ACTIVE, False, reasons.Serving.OTHER_WRITER, quarrel.message)
    return (conditions.SCALING_ACTIVE, True, reasons.Serving.SOLE_WRITER, "the Deployment has one writer")


def _valid(pool: ServingPool) -> News:
    missing = not_supported(pool)
    if missing:
        return (conditions.VALID, False, reasons.Support.NOT_SUPPORTED, "; ".join(missing))
    return (conditions.VALID, True, reasons.Support.SUPPORTED, "all that the spec asks for is built")


def freed(pool: ServingPool) -> tuple[Pod, ...]:
    """Replicas with GPUs that have gone past the queue: somebody took their gate off, or made them by hand."""
    gpus = pool.demand.gpu_resource
    past = (p for p in pool.pods if p.bound and p.is_active and p.placed_at is None and p.requests.get(gpus))
    return tuple(sorted(past, key=lambda pod: pod.name))


def freed_message(pod: Pod) -> str:
    """What is told of such a replica."""
    return (
        f"pod {pod.name} runs on {pod.node} without having been placed there: its scheduling gate was removed, or "
        "it was made by hand; what it has is counted as used. Delete it: its successor waits for its turn"
    )


def _placed(pool: ServingPool) -> News:
    """Replicas without GPUs have no gate: what they wait for kube-scheduler says."""
    if past := freed(pool):
        return (conditions.CAPACITY_AVAILABLE, True, reasons.Serving.GATE_REMOVED, freed_message(past[0]))
    homeless = sorted(pod.unschedulable for pod in pool.pods if not pod.bound and not pod.placed_at)
    if any(homeless) and not pool.spec.gpus_per_replica:
        return (conditions.CAPACITY_AVAILABLE, False, reasons.Serving.UNSCHEDULABLE, homeless[-1])
    return (conditions.CAPACITY_AVAILABLE, True, reasons.Serving.PLACED, "each replica has its node")


def _phase(pool: ServingPool, verdict: Verdict) -> str:
    pods = pool.pod_set or NO_PODS
    if not verdict.replicas and not pods.current_replicas:
        return "Zero"
    if not pods.ready_replicas:
        return "Pending"
    if pods.updated_replicas < pods.current_replicas:
        return "RollingOut"
    if pods.ready_replicas < pool.spec.replicas.min:
        return "Degraded"
    if pods.ready_replicas != verdict.replicas or pods.current_replicas != verdict.replicas:
        return "Scaling"
    return "Ready"
