"""Before the first gang of a shape a pod is tried in a dry run: what is added to it is known before all is made."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from builders import NOW, a_job
from kit.workspaces import a_workspace
from stokehold.cluster.apply.trials import Trials
from stokehold.cluster.errors import ConflictError, ForbiddenError, InvalidError, UnavailableError
from stokehold.cluster.resources import PODS, Resource
from stokehold.cluster.snapshots import Cluster
from stokehold.model.actions import AdmitJob, Placement, StartWorkspace
from stokehold.model.demand import shape_of
from stokehold.model.snapshot import Job, Workspace

PLACE = Placement("h100", "h100", "on-prem", "nvidia.com/gpu", ("n1", "n2"), ())
CANNOT = InvalidError(400, "BadRequest", 'admission webhook "x" does not support dry run')


@dataclass
class ApiServer:
    """One whose LimitRange adds so much CPU to each pod without a request, or that refuses every pod."""

    cpu: str = ""
    refusal: Exception | None = None
    disliked: str = ""
    """Whose pods alone are refused, where that is not all."""
    tried: list[str] = field(default_factory=list)

    @property
    def api(self) -> "ApiServer":
        return self

    async def call(self, call: Callable[[], Awaitable[Any]]) -> Any:
        return await call()

    async def create(self, resource: Resource, body: dict[str, Any], namespace: str, *, dry_run: bool) -> Any:
        assert (resource, dry_run) == (PODS, True)
        meta = {"name": f"{body['metadata'].get('generateName', '')}x", **body["metadata"]}
        self.tried.append(meta["name"])
        await asyncio.sleep(0)  # as long as others need to ask the same
        if self.refusal is not None and meta["name"].startswith(self.disliked):
            raise self.refusal
        main = body["spec"]["containers"][0]
        requests = {**({"cpu": self.cpu} if self.cpu else {}), **main["resources"].get("requests", {})}
        spec = {**body["spec"], "containers": [{**main, "resources": {**main["resources"], "requests": requests}}]}
        told = {"uid": "tried", "namespace": namespace, "creationTimestamp": NOW.isoformat()}
        return {**body, "spec": spec, "metadata": {**meta, **told}}


@dataclass
class Scene:
    server: ApiServer
    cluster: Cluster
    wakes: list[None]

    def trials(self) -> Trials:
        return Trials(cast("Any", self.server), self.cluster)


def scene(server: ApiServer, *owners: Job | Workspace) -> Scene:
    wakes: list[None] = []
    cluster = Cluster(lambda: wakes.append(None), lambda: NOW)
    for owner in owners:
        shelf = cluster.jobs if isinstance(owner, Job) else cluster.workspaces
        shelf.on_upsert(owner.key, None, cast("Any", owner))
    wakes.clear()
    return Scene(server, cluster, wakes)


def gangs(*names: str) -> list[Job]:
    made = (a_job(name, numNodes=2) for name in names)
    return [replace(job, shape=shape_of(job.spec)) for job in made]


async def outcomes(trials: Trials, jobs: list[Job], missing: tuple[int, ...] = (0, 1)) -> list[str]:
    actions = (AdmitJob(job, 1, 0, PLACE, missing) for job in jobs)
    found = await asyncio.gather(*(trials.try_worker(one) for one in actions), return_exceptions=True)
    return [type(one).__name__ for one in found]


async def test_one_pod_is_tried_for_all_of_its_shape_and_nothing_is_made_before_the_next_plan_knows():
    jobs = gangs("a", "b", "c")
    here = scene(ApiServer(cpu="30"), *jobs)

    assert await outcomes(here.trials(), jobs) == ["ConflictError"] * 3
    assert here.server.tried == ["a-1-0"]
    assert here.wakes, "nothing else in the cluster changes"
    planned = list(here.cluster.snapshot().jobs.values())
    assert {job.added for job in planned} == {(("cpu", 30_000),)}
    assert await outcomes(here.trials(), planned) == ["NoneType"] * 3
    assert len(here.server.tried) == 1


async def test_where_nothing_is_added_one_try_is_all():
    jobs = gangs("a", "b", "c")
    here = scene(ApiServer(), *jobs)

    assert await outcomes(here.trials(), jobs) == ["NoneType"] * 3
    assert await outcomes(here.trials(), jobs) == ["NoneType"] * 3
    assert here.server.tried == ["a-1-0"]
    assert here.cluster.snapshot().jobs["team-a", "a"].added == ()


async def test_webhook_that_cannot_do_a_dry_run_stands_in_nobodys_way():
    jobs = gangs("a", "b")
    here = scene(ApiServer(refusal=CANNOT), *jobs)

    assert await outcomes(here.trials(), jobs) == ["NoneType"] * 2
    assert len(here.server.tried) == 1


async def test_whose_pods_are_refused_hears_it_before_anything_is_made():
    jobs = gangs("a", "b")
    here = scene(ApiServer(refusal=ForbiddenError(403, "Forbidden", "exceeded quota")), *jobs)

    assert await outcomes(here.trials(), jobs) == ["ForbiddenError"] * 2


async def test_api_server_that_does_not_answer_the_first_of_a_shape_is_not_asked_the_same_for_the_others():
    """A webhook that is down takes 10 s for each, and no work at all moves meanwhile."""
    jobs, other = gangs("a", "b", "c"), [replace(job, namespace="team-b") for job in gangs("d")]
    here = scene(ApiServer(refusal=UnavailableError(500, "InternalError", "failed calling webhook")), *jobs, *other)
    trials = here.trials()

    assert await outcomes(trials, jobs + other) == ["UnavailableError"] * 4
    assert here.server.tried == ["a-1-0", "d-1-0"]
    here.server.refusal = None
    assert await outcomes(trials, jobs) == ["NoneType"] * 3
    assert here.server.tried == ["a-1-0", "d-1-0", "a-1-0"]


async def test_a_refusal_of_one_is_not_held_against_the_others_of_its_shape():
    """A policy may look at its name, or at its command, of which the shape says nothing."""
    jobs = gangs("a", "b", "c")
    here = scene(ApiServer(refusal=ForbiddenError(403, "Forbidden", "not this name"), disliked="a-"), *jobs)

    assert await outcomes(here.trials(), jobs) == ["ForbiddenError", "NoneType", "NoneType"]


async def test_a_try_that_is_broken_off_leaves_nobody_waiting():
    jobs = gangs("a", "b")
    here = scene(ApiServer(), *jobs)
    trials = here.trials()
    first, second = (asyncio.create_task(trials.try_worker(AdmitJob(job, 1, 0, PLACE, (0, 1)))) for job in jobs)
    await asyncio.sleep(0)

    first.cancel()
    await second

    assert first.cancelled()
    assert here.server.tried == ["a-1-0", "b-1-0"]


async def test_rest_of_a_gang_is_made_without_a_try():
    jobs = gangs("a")
    here = scene(ApiServer(cpu="30"), *jobs)

    assert await outcomes(here.trials(), jobs, missing=(1,)) == ["NoneType"]
    assert here.server.tried == []


async def test_workspace_whose_pod_would_not_fit_is_planned_anew_with_what_it_really_asks_for():
    desk = a_workspace("ada", pods=())
    here = scene(ApiServer(cpu="30"), desk)

    with pytest.raises(ConflictError, match="cpu 30000"):
        await here.trials().try_workspace(StartWorkspace(desk, PLACE))

    (planned,) = here.cluster.snapshot().workspaces.values()
    assert planned.added == (("cpu", 30_000),)
    await here.trials().try_workspace(StartWorkspace(planned, PLACE))
