"""A cluster of values that carries provisioning plans out, with providers that one can script."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from builders import GPU, a_job, a_pool, a_snapshot
from stokehold.api import conditions
from stokehold.api.conditions import find_condition
from stokehold.api.names import CLAIM_LABEL, RELEASE_FINALIZER
from stokehold.api.v1alpha1.gpu_node_claim import GPUNodeClaimStatus
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePoolStatus
from stokehold.api.v1alpha1.training_job import TrainingJobStatus
from stokehold.model.actions import (
    Action,
    CordonNode,
    CreateClaim,
    DeleteClaim,
    DeleteNode,
    LaunchNode,
    ReleaseClaim,
    TerminateNode,
    TerminateOrphan,
    WriteStatus,
)
from stokehold.model.capacity import Instance, Listing, Refusal, Terminated
from stokehold.model.reasons import ClaimFailure
from stokehold.model.snapshot import Claim, Job, Namespace, Node, NodePool, Snapshot
from stokehold.planning.provisioning.plan import plan_provisioning
from stokehold.planning.provisioning.settings import ProvisioningSettings

SETTINGS = ProvisioningSettings()
KUBE_SYSTEM = Namespace("kube-system", {}, uid="cluster-1")
Verdict = Callable[[LaunchNode], ClaimFailure | None]


def always_delivers(_: LaunchNode) -> ClaimFailure | None:
    return None


class World:
    """Holds a snapshot; `step` plans and carries out, `settle` does so until nothing is left to do."""

    def __init__(self, snapshot: Snapshot, verdict: Verdict = always_delivers) -> None:
        namespaces = {**snapshot.namespaces, KUBE_SYSTEM.name: KUBE_SYSTEM}
        self.snapshot = replace(snapshot, namespaces=namespaces)
        self.verdict = verdict
        self.machines: dict[str, Instance] = {}
        self.most_claims: dict[str, int] = {}
        self._uids = 0

    def plan(self) -> list[Action]:
        return list(plan_provisioning(self.snapshot, SETTINGS))

    def step(self) -> list[Action]:
        actions = self.plan()
        for action in actions:
            self.carry_out(action)
        return actions

    def settle(self, most: int = 60) -> None:
        for _ in range(most):
            if not self.step():
                return
        raise AssertionError(f"it never comes to rest: {self.plan()}")

    def wait(self, seconds: float) -> None:
        self.snapshot = replace(self.snapshot, taken_at=self.now + timedelta(seconds=seconds))
        self._list()

    def boot(self, gpus: int | None = None) -> None:
        """Every machine joins as a node that is ready, with so many GPUs or as many as it was asked for with."""
        for machine in self.machines.values():
            claim = next(c for c in self.snapshot.claims.values() if c.uid == machine.request_id)
            amounts = {
                GPU: claim.spec.gpus_per_node if gpus is None else gpus,
                "cpu": 96_000,
                "memory": 2**39,
                "pods": 110,
            }
            labels = {CLAIM_LABEL: claim.name}
            node = Node(claim.name, labels, amounts, amounts, provider_id=machine.provider_id, uid=f"node-{claim.uid}")
            self._put(nodes={**self.snapshot.nodes, claim.name: self.snapshot.nodes.get(claim.name, node)})

    @property
    def now(self) -> datetime:
        return self.snapshot.taken_at

    @property
    def claims(self) -> list[Claim]:
        return list(self.snapshot.claims.values())

    def job(self, name: str) -> Job:
        return self.snapshot.jobs["team-a", name]

    def carry_out(self, action: Action) -> None:  # noqa: C901, PLR0912, PLR0915 - one branch an action, flat
        snapshot = self.snapshot
        match action:
            case CreateClaim(name, spec, provider):
                if name in snapshot.claims:
                    return
                self._uids += 1
                claim = Claim(
                    name=name,
                    uid=f"claim-{self._uids}",
                    resource_version="1",
                    generation=1,
                    created_at=self.now,
                    provider=provider,
                    spec=spec,
                    status=GPUNodeClaimStatus(),
                    finalizers=(RELEASE_FINALIZER,),
                )
                self._claim(claim)
                held = sum(c.spec.pool_name == spec.pool_name for c in self.claims)
                self.most_claims[spec.pool_name] = max(held, self.most_claims.get(spec.pool_name, 0))
            case LaunchNode(claim, pool, request):
                refused = self.verdict(action)
                if refused is None:
                    machine = Instance(f"m-{claim.uid}", claim.uid, claim.name, request.zone, "", self.now)
                    self.machines.setdefault(machine.provider_id, machine)
                    self._answer(claim, machine)
                else:
                    self._answer(claim, Refusal(refused, "scripted", self.now))
            case TerminateNode(claim, _):
                for name in [n for n, m in self.machines.items() if m.request_id == claim.uid]:
                    del self.machines[name]
                self._answer(claim, Terminated(self.now))
            case TerminateOrphan(_, instance, _):
                self.machines.pop(instance.provider_id, None)
                self._list()
            case CordonNode(node, closed, _):
                self._put(nodes={**snapshot.nodes, node.name: replace(node, unschedulable=closed, closed_by_us=closed)})
            case DeleteNode(node, _):
                self._put(nodes={name: n for name, n in snapshot.nodes.items() if name != node.name})
            case DeleteClaim(claim, _):
                self._claim(replace(snapshot.claims[claim.name], deleting=True, deleting_since=self.now))
            case ReleaseClaim(claim):
                self._put(claims={n: c for n, c in snapshot.claims.items() if n != claim.name})
            case WriteStatus(Claim() as claim, status):
                self._claim(replace(snapshot.claims[claim.name], status=GPUNodeClaimStatus.model_validate(status)))
            case WriteStatus(NodePool() as pool, status):
                new = replace(pool, status=GPUNodePoolStatus.model_validate(status))
                self._put(node_pools={**snapshot.node_pools, pool.name: new})
            case WriteStatus(Job() as job, status):
                new_job = replace(job, status=TrainingJobStatus.model_validate(status))
                self._put(jobs={**snapshot.jobs, job.key: new_job})
            case _:
                raise AssertionError(f"provisioning does not do {action}")

    def _claim(self, claim: Claim) -> None:
        self._put(claims={**self.snapshot.claims, claim.name: claim})

    def _answer(self, claim: Claim, answer: Instance | Refusal | Terminated) -> None:
        self._put(answers={**self.snapshot.answers, claim.uid: answer})
        self._list()

    def _list(self) -> None:
        pools = [n for n, p in self.snapshot.node_pools.items() if p.spec.provider is not None]
        by_uid = {claim.uid: claim.spec.pool_name for claim in self.claims}
        listings = {
            name: Listing(self.now, tuple(m for m in self.machines.values() if by_uid.get(m.request_id, name) == name))
            for name in pools
        }
        self._put(listings=listings)

    def _put(self, **fields: object) -> None:
        self.snapshot = replace(self.snapshot, **fields)  # type: ignore[arg-type]


def created(actions: Iterable[Action]) -> list[CreateClaim]:
    return [action for action in actions if isinstance(action, CreateClaim)]


SHORT = {"phase": "Pending", "queue": {"reason": "WaitingForCapacity", "message": "full"}}


def a_cloud(name: str = "cloud", **spec: object) -> NodePool:
    defaults: dict[str, object] = {
        "provider": {"simulated": {}},
        "gpuType": "h100",
        "gpusPerNode": 8,
        "capacityClass": "on-demand",
        "dataClasses": ["public", "internal"],
        "limits": {"maxNodes": 8},
        "price": {"perGpuHour": "4", "currency": "USD"},
        "nodeShape": {"cpu": 96, "memory": "512Gi"},
    }
    return a_pool(name, **{**defaults, **spec})


def a_waiting_job(name: str = "gang", **spec: object) -> Job:
    defaults: dict[str, object] = {"numNodes": 4, "gpusPerNode": 8, "gpuTypes": ["h100"], "dataClass": "internal"}
    return a_job(name, status=SHORT, **{**defaults, **spec})


def a_world(*jobs: Job, pools: list[NodePool] | None = None, **fields: object) -> World:
    return World(a_snapshot(jobs=jobs, node_pools=pools or [a_cloud()], **fields))  # type: ignore[arg-type]


def told(job: Job) -> tuple[str, str]:
    found = find_condition(job.status.conditions, conditions.CAPACITY_PROVISIONED)
    return (found.reason, found.message) if found else ("", "")
