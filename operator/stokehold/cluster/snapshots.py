"""What the watches hold -> `model.Snapshot`: the only reader. Incremental: each object is converted once per change.

With the indexes a snapshot is a few shallow copies, so planners may take as long as they like with it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from stokehold.api.v1alpha1.dev_workspace import Storage
from stokehold.cluster.additions import Additions
from stokehold.cluster.indexes import Clock, Jobs, Namespaced, Nodes, Owners, Pods, PodSets, Shelf, Wake
from stokehold.cluster.kubelet_refusals import KubeletRefusals
from stokehold.cluster.orphans import Orphans
from stokehold.cluster.restores import RestoreMemory
from stokehold.cluster.store import Key
from stokehold.model import names
from stokehold.model.capacity import Answer, Listing
from stokehold.model.demand import Amounts, Terms, with_gpu_resource, within
from stokehold.model.load import PoolLoad
from stokehold.model.pods import Member, Pod
from stokehold.model.snapshot import (
    Autoscaler,
    Claim,
    Holidays,
    Job,
    Namespace,
    NodePool,
    Notebook,
    OwnObject,
    PriorityClass,
    Queue,
    ServingPool,
    Sighting,
    Snapshot,
    StorageClass,
    VolumeClaim,
    Workspace,
)

T = TypeVar("T")
W = TypeVar("W", Job, Workspace, ServingPool)
S = TypeVar("S", Workspace, ServingPool)
V = TypeVar("V", Job, ServingPool)


@dataclass(frozen=True, slots=True)
class RefusedCreation:
    """What the API server said when it refused an object's children last, and how often it did for this spec."""

    message: str
    at: datetime
    generation: int
    times: int
    name_taken: bool


SIZE_ASKED_AGAIN_AFTER = timedelta(minutes=5)
"""The storage class may allow by then what it had refused."""


@dataclass(slots=True)
class Outside:
    """What no object that is watched tells; set by whoever knows it."""

    unread_claims: Callable[[], Iterable[str]] = tuple
    """The uids of the claims that cannot be read, as their watch knows them."""
    unread_pools: Callable[[], Iterable[str]] = tuple
    """The names of the GPUNodePools that cannot be read; one that could be once counts as it was."""
    steady_seconds: Callable[[], float] = lambda: math.inf
    """For how long the watch of pods has not been interrupted."""
    term: Callable[[], int] = lambda: 0
    """How often the leadership had changed hands when this process began to lead."""


class Cluster:
    """All indexes together; `snapshot` freezes them."""

    def __init__(
        self,
        wake: Wake,
        clock: Clock,
        settle_time: timedelta = timedelta(seconds=30),
        hurry: Wake = lambda: None,
    ) -> None:
        """`settle_time` is for how long GPUs must stay before a node that had lost some takes new work.

        `hurry` is called when a kubelet has refused a workspace's pod.
        """
        self.outside = Outside()
        self.nodes = Nodes(wake, clock, settle_time)
        self.pods = Pods(wake, hurry)
        self.jobs = Jobs(wake)
        self.orphans = Orphans(self.pods, self.jobs, clock)
        self._additions, self._kubelet_refusals = Additions(clock), KubeletRefusals(clock)
        self.queues: Shelf[Queue] = Shelf(wake)
        self.node_pools: Shelf[NodePool] = Shelf(wake)
        self.priority_classes: Shelf[PriorityClass] = Shelf(wake)
        self.namespaces: Shelf[Namespace] = Shelf(wake)
        self.claims: Shelf[Claim] = Shelf(wake)
        self.sightings: Shelf[Sighting] = Shelf(wake)
        self.workspaces: Namespaced[Workspace] = Namespaced(wake)
        self.serving_pools: Namespaced[ServingPool] = Namespaced(wake)
        self.stateful_sets = PodSets(wake)
        self.deployments = PodSets(wake)
        self.volume_claims: Namespaced[VolumeClaim] = Namespaced(wake)
        self.holidays: Namespaced[Holidays] = Namespaced(wake)
        self.volumes: Shelf[Terms] = Shelf(wake)
        """By name: those that not all nodes can reach."""
        self.storage_classes: Shelf[StorageClass] = Shelf(wake)
        self.serving_services, self.disruption_budgets = Owners(wake), Owners(wake)
        self.workspace_services, self.gang_services, self.restores = Owners(wake), Owners(wake), RestoreMemory(clock)
        self.autoscalers: Namespaced[Autoscaler] = Namespaced(wake)
        self.loads: dict[Key, PoolLoad] = {}
        """Of the serving pools, as the scraper has gathered them."""
        self.notebooks: dict[Key, Notebook] = {}
        """What Jupyter servers have said, kept by their prober."""
        self._refusals: dict[str, RefusedCreation] = {}
        """By uid of the owner."""
        self._refused_sizes: dict[str, tuple[str, datetime]] = {}
        """By uid of the workspace, with when; a new process asks once more."""
        self._told: dict[str, frozenset[str]] = {}
        """By uid of the GPUNode; a new process tells it again, and the API server has the Event already."""
        self._refused_statuses: set[str] = set()
        # Uids of the claims whose last status the API server found invalid.
        self._listings: dict[str, Listing] = {}
        self._answers: dict[str, Answer] = {}
        self._wake = wake
        self._clock = clock

    def note_listing(self, pool: str, listing: Listing | None) -> None:
        """Remember which machines a pool's provider says it runs; None when the pool is gone."""
        before = self._listings.get(pool)
        if listing is None:
            self._listings.pop(pool, None)
        else:
            self._listings[pool] = listing
        if listing is None or before is None or before.instances != listing.instances:
            self._wake()

    def note_given_back(self, pool: str, machine: str) -> None:
        """Take a machine off the list, which is older: with its claim gone too it would look like nobody's."""
        known = self._listings.get(pool)
        if known is not None and known.instances is not None:
            left = tuple(instance for instance in known.instances if instance.provider_id != machine)
            self._listings[pool] = replace(known, instances=left)

    def listing(self, pool: str) -> Listing | None:
        """What a pool's provider said last."""
        return self._listings.get(pool)

    def owner(self) -> str:
        """The identity of the cluster at providers; empty while it is not known."""
        namespace = self.namespaces.values.get("kube-system")
        return namespace.uid if namespace is not None else ""

    def is_closed(self, namespace: str) -> bool:
        """Whether the namespace is being deleted, and takes nothing new."""
        known = self.namespaces.values.get(namespace)
        return known is not None and known.terminating

    def note_answer(self, claim: OwnObject, answer: Answer) -> None:
        """Remember what the provider of a claim answered, until the claim is gone."""
        self._answers[claim.uid] = answer
        self._wake()

    def _current_answers(self) -> dict[str, Answer]:
        if self._answers:
            alive = {claim.uid for claim in self.claims.values.values()}
            self._answers = {uid: answer for uid, answer in self._answers.items() if uid in alive}
        return dict(self._answers)

    def _current_sightings(self) -> dict[str, Sighting]:
        found = dict(self.sightings.values)
        if self._told:
            told = {name: self._told[one.uid] for name, one in found.items() if one.uid in self._told}
            self._told = {found[name].uid: keys for name, keys in told.items()}
            found |= {name: replace(found[name], told=keys) for name, keys in told.items()}
        return found

    def note_refusal(self, owner: OwnObject, message: str, *, name_taken: bool = False) -> None:
        """Remember in whose words the API server refused an object's children; an empty message forgets it."""
        before = self._refusals.pop(owner.uid, None)
        if message:
            times = before.times if before is not None and before.generation == owner.generation else 0
            self._refusals[owner.uid] = RefusedCreation(message, self._clock(), owner.generation, times + 1, name_taken)

    def note_refused_size(self, workspace: Workspace, size: str) -> None:
        """Remember that the workspace's volume cannot grow to this size."""
        self._refused_sizes[workspace.uid] = (size, self._clock())

    def note_status(self, subject: OwnObject, *, refused: bool) -> None:
        """Remember whether the API server takes a claim's status: what is given back must go without it."""
        if refused and subject.KIND == Claim.KIND:
            self._refused_statuses.add(subject.uid)
            self._wake()
        else:
            self._refused_statuses.discard(subject.uid)

    def _current_claims(self) -> dict[str, Claim]:
        found = dict(self.claims.values)
        if self._refused_statuses:
            refused = {name: claim for name, claim in found.items() if claim.uid in self._refused_statuses}
            self._refused_statuses = {claim.uid for claim in refused.values()}
            found |= {name: replace(claim, status_refused=True) for name, claim in refused.items()}
        return found

    def added_to(self, owner: Job | Workspace) -> Amounts | None:
        """What is added to the requests of its pods; None while nobody knows."""
        return self._additions.added_to(owner)

    def note_trial(self, owner: Job | Workspace, pod: Pod | None) -> None:
        """Remember what a pod of it that was only tried asked for; None: none can be tried, the first one will tell."""
        watched: Mapping[Key, Job | Workspace] = self.jobs.values if isinstance(owner, Job) else self.workspaces.values
        known = watched.get(owner.key)
        if known is None or (known.uid, known.generation) != (owner.uid, owner.generation):
            return
        if pod is None:
            self._additions.note_untried(known)
            return
        self._additions.note(known, pod)
        if self._additions.added_to(known):
            self._wake()

    def note_told(self, sighting: Sighting, keys: frozenset[str]) -> None:
        """Remember what has been told of a node."""
        self._told[sighting.uid] = keys

    def snapshot(self) -> Snapshot:
        """The cluster now."""
        self._learn()
        jobs = {
            key: self._with_claims(self._additions.counted(self._complete(job, self.pods.by_owner.get(job.uid))))
            for key, job in self.jobs.values.items()
        }
        workspaces = {key: self._with_holidays(self._with_volume(w)) for key, w in self.workspaces.values.items()}
        serving = {pool.key: pool for pool in self.pools_with_pods()}
        self._forget_refusals([*jobs.values(), *workspaces.values(), *serving.values()])
        now, steady = self._clock(), self.outside.steady_seconds()
        return Snapshot(
            taken_at=now,
            term=self.outside.term(),
            steady_since=now - timedelta(seconds=steady) if math.isfinite(steady) else None,
            nodes=dict(self.nodes.values),
            used=self.pods.used(),
            leaving=tuple(self.pods.leaving.values()),
            jobs=jobs,
            orphans=self.orphans.now(),
            node_pools=dict(self.node_pools.values),
            queues=dict(self.queues.values),
            priority_classes=dict(self.priority_classes.values),
            namespaces=dict(self.namespaces.values),
            workspaces=workspaces,
            with_service=self.workspace_services.uids() | self.gang_services.uids(),
            restores=self.restores.now(),
            serving_pools=serving,
            loads=dict(self.loads),
            claims=self._current_claims(),
            unread_claims=frozenset(self.outside.unread_claims()),
            unread_pools=frozenset(self.outside.unread_pools()) - self.node_pools.values.keys(),
            sightings=self._current_sightings(),
            tenants=self.pods.tenants(),
            listings=dict(self._listings),
            answers=self._current_answers(),
            notebooks=dict(self.notebooks),
        )

    def _learn(self) -> None:
        """What is seen only in passing."""
        fresh = self.pods.take_fresh()
        self._additions.learn_from_workers(fresh, self.jobs.values)
        self._additions.learn_from_workspaces(fresh, self.workspaces.values.values())
        self._additions.forget_old()
        self._kubelet_refusals.learn(self.pods.take_refused())
        self._kubelet_refusals.forget_gone(self.stateful_sets.by_owner.values())

    def pools_with_pods(self) -> list[ServingPool]:
        """The serving pools as a snapshot has them."""
        reached, guarded = self.serving_services.uids(), self.disruption_budgets.uids()
        known = (self._with_pod_set(pool, self.deployments) for pool in self.serving_pools.values.values())
        pools = [self._with_claims(pool) for pool in known]
        others = {(key[0], found.pool): found for key, found in sorted(self.autoscalers.values.items(), reverse=True)}
        return [
            replace(p, has_service=p.uid in reached, has_budget=p.uid in guarded, autoscaler=others.get(p.key))
            for p in pools
        ]

    def _complete(self, owner: W, pods: dict[Key, Pod] | None) -> W:
        refusal = self._refusals.get(owner.uid) if self._refusals else None
        if refusal is not None and refusal.generation != owner.generation:
            refusal = None  # whoever has changed the spec need not wait
        if pods is None and refusal is None:
            return owner
        complete = replace(owner, pods=tuple((pods or {}).values()))
        if refusal is None:
            return complete
        return replace(
            complete,
            create_error=refusal.message,
            create_failed_at=refusal.at,
            create_failures=refusal.times,
            name_taken=refusal.name_taken,
        )

    def _with_claims(self, owner: V) -> V:
        if not owner.claims:
            return owner
        reach = tuple(self._reach(owner.namespace, owner.claims))
        demand = within(owner.demand, *(terms for _, terms in reach)) if reach else owner.demand
        return replace(owner, volumes=self._named(owner), reach=reach, demand=demand)

    def _named(self, owner: Job | Workspace | ServingPool) -> tuple[tuple[str, VolumeClaim | None], ...]:
        return tuple((name, self.volume_claims.values.get((owner.namespace, name))) for name in owner.claims)

    def _with_volume(self, workspace: Workspace) -> Workspace:
        complete = self._additions.counted(self._with_pod_set(workspace, self.stateful_sets))
        if complete.pod_set is not None:
            complete = replace(complete, pod_set=self._kubelet_refusals.noted(complete.pod_set, complete.pods))
        if not all(pod.owner_uid for pod in complete.pods):  # a copy that somebody made to look into it is no desk
            complete = replace(complete, pods=tuple(pod for pod in complete.pods if pod.owner_uid))
        home = names.volume_claim_name(workspace.name)
        volume = self.volume_claims.values.get((workspace.namespace, home))
        if volume is not None:
            refused, _ = self._refused_sizes.get(workspace.uid, ("", None))
            complete = replace(complete, volume=replace(volume, refused_size=refused))
        if workspace.claims:
            complete = replace(complete, volumes=self._named(workspace))
        reach = tuple(self._reach(workspace.namespace, (home, *workspace.claims)))
        if volume is None and workspace.spec.storage is not None:
            terms = self._will_reach(workspace.spec.storage)
            reach = ((home, terms), *reach) if terms else reach
        if not reach:
            return complete
        # kube-scheduler would refuse all other nodes, and the workspace would hold their GPUs meanwhile.
        return replace(complete, reach=reach, demand=within(complete.demand, *(terms for _, terms in reach)))

    def _reach(self, namespace: str, claims: Iterable[str]) -> Iterator[tuple[str, Terms]]:
        for claim in claims:
            known = self.volume_claims.values.get((namespace, claim))
            if known is None:
                continue
            made_by = self.storage_classes.values.get(known.storage_class)
            made_for = made_by.allowed if made_by is not None else None
            terms = self.volumes.values.get(known.volume) if known.volume else made_for
            if terms:
                yield claim, terms

    def _will_reach(self, storage: Storage) -> Terms:
        """For which nodes a volume would be made that nobody has claimed yet; empty for all."""
        classes = self.storage_classes.values
        named = storage.storage_class_name
        default = (found for _, found in sorted(classes.items()) if found.is_default)
        known = classes.get(named) if named else next(default, None)
        return known.allowed if known is not None else ()

    def _with_holidays(self, workspace: Workspace) -> Workspace:
        schedule = workspace.spec.schedule
        if schedule is None or schedule.holidays is None:
            return workspace
        return replace(
            workspace, holidays=self.holidays.values.get((workspace.namespace, schedule.holidays.config_map))
        )

    def _with_pod_set(self, owner: S, pod_sets: PodSets) -> S:
        member = Member(owner.KIND, names.label_value(owner.name))
        complete = self._complete(owner, self.pods.by_member.get((owner.namespace, member)))
        pod_set = pod_sets.by_owner.get(owner.uid)
        if pod_set is None:
            return complete
        # Its pods cannot ask for their GPUs by another name any more.
        return replace(complete, pod_set=pod_set, demand=with_gpu_resource(complete.demand, pod_set.gpu_resource))

    def _forget_refusals(self, owners: Iterable[OwnObject]) -> None:
        if self._refusals or self._refused_sizes:
            alive = {owner.uid for owner in owners}
            self._refusals = {uid: refusal for uid, refusal in self._refusals.items() if uid in alive}
            forgiven = self._clock() - SIZE_ASKED_AGAIN_AFTER
            sizes = self._refused_sizes.items()
            self._refused_sizes = {uid: told for uid, told in sizes if uid in alive and told[1] > forgiven}
