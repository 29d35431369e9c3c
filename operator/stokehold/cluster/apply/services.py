"""Writes for Services: to bring back those of gangs and workspaces, to bring any up to date."""

from contextlib import suppress

from stokehold.cluster import manifests, workspace_manifests
from stokehold.cluster.apply.writes import Writes
from stokehold.cluster.client import PatchKind
from stokehold.cluster.errors import InvalidError, NotFoundError
from stokehold.cluster.resources import SERVICES
from stokehold.model.actions import RestoreService
from stokehold.model.snapshot import Job, OwnObject
from stokehold.observability import logs

log = logs.get("apply")


async def restore(writes: Writes, action: RestoreService) -> None:
    """What has lost its label alone is there under its name, and gets the label back."""
    owner = action.owner
    body = manifests.service(owner) if isinstance(owner, Job) else workspace_manifests.service(owner)
    await bring_up_to_date(writes, body, owner)
    log.info("Service restored", kind=owner.KIND, owner="/".join(owner.key))
    await writes.tell(owner, action.notes)


async def bring_up_to_date(writes: Writes, body: manifests.Manifest, owner: OwnObject) -> None:
    """Applied, not created: it may be there with the port of an earlier spec, or without its label."""
    body["metadata"]["annotations"] = writes.stamp()
    try:
        await writes.apply_own(SERVICES, body, owner)
    except InvalidError:
        # An apply leaves a port that anybody else has written where it is: two of one name, which are refused.
        ports = [{"op": "replace", "path": "/spec/ports", "value": body["spec"]["ports"]}]
        name, namespace = body["metadata"]["name"], owner.namespace
        with suppress(NotFoundError, InvalidError):  # then something else is wrong with it, which is told below
            await writes.patch(SERVICES, name, ports, namespace=namespace, kind=PatchKind.JSON)
        await writes.apply_own(SERVICES, body, owner)
