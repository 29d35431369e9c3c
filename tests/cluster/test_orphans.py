"""Workers are deleted only when the API server itself does not know their job, whatever our watch says."""

import pytest
from aiohttp import web

from builders import NOW, a_job, a_worker
from cluster.fake_api import client, html, serving
from stokehold.cluster.apply import Writer, Writes
from stokehold.cluster.apply.jobs import delete_orphan
from stokehold.cluster.errors import ConflictError
from stokehold.cluster.manifests import owner_reference

JOB = a_job("pair", numNodes=2)
OTHER = a_job("pair", numNodes=2, uid="another-of-this-name")
LEAD = a_worker(JOB, 0)


@pytest.fixture
async def fake():
    async with serving() as server:
        for plural, name in (("pods", LEAD.name), ("services", "pair-gang")):
            meta = {"name": name, "namespace": JOB.namespace, "ownerReferences": [owner_reference(JOB)]}
            await server.put(plural, {"metadata": meta | {"uid": LEAD.uid if plural == "pods" else "s"}})
        yield server


@pytest.fixture
async def writes(fake, tmp_path):
    async with client(fake, tmp_path / "kubeconfig") as api:
        yield Writes(api, (), Writer("test", lambda: None, lambda: 0), lambda: NOW)


def left(fake) -> list[str]:
    return [*(name for _, name in fake.held("pods")), *(name for _, name in fake.held("services"))]


def as_object(job):
    return {"metadata": {"name": job.name, "namespace": job.namespace, "uid": job.uid}}


async def test_lead_goes_with_the_service_of_its_gang(fake, writes):
    await delete_orphan(writes, LEAD)

    assert left(fake) == []


async def test_worker_of_a_job_of_that_name_which_is_another_one_goes(fake, writes):
    await fake.put("trainingjobs", as_object(OTHER))

    await delete_orphan(writes, LEAD)

    assert left(fake) == []


async def test_service_of_the_next_job_of_that_name_stays(fake, writes):
    await fake.put("trainingjobs", as_object(OTHER))
    meta = {"name": "pair-gang", "namespace": JOB.namespace, "ownerReferences": [owner_reference(OTHER)]}
    await fake.put("services", {"metadata": meta})

    await delete_orphan(writes, LEAD)

    assert left(fake) == ["pair-gang"]


async def test_job_that_the_watch_has_not_shown_yet_keeps_its_workers(fake, writes):
    await fake.put("trainingjobs", as_object(JOB))

    with pytest.raises(ConflictError):  # which is no success that wakes the next plan at once
        await delete_orphan(writes, LEAD)

    assert left(fake) == [LEAD.name, "pair-gang"]


async def test_kind_that_is_away_costs_nobody_a_pod(fake, writes):
    (pod,) = fake.held("pods").values()
    fake.fail_next("get", reply(pod), html(404))  # which is what it says of paths that it does not know

    with pytest.raises(ConflictError):
        await delete_orphan(writes, LEAD)

    assert left(fake) == [LEAD.name, "pair-gang"]


def reply(obj):
    async def answer(_):
        return web.json_response(obj)

    return answer
