"""kopf's part: it serves admission for our kinds, and ends the process in order.

It watches nothing. The caches come from our own informers, which lose no deletes and cost a fraction
(docs/designs/0002), so kopf runs on every replica, standbys included, and admission has no single point.
Rules of one object stand in the CRDs as CEL; here are those that need more, and unknown fields.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import kopf
from pydantic import ValidationError

from stokehold.api.base import Kind
from stokehold.api.names import GROUP, VERSION
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePool, GPUNodePoolSpec
from stokehold.api.v1alpha1.gpu_queue import GPUQueue
from stokehold.api.v1alpha1.inference_pool import InferencePool
from stokehold.api.v1alpha1.training_job import TrainingJob
from stokehold.cluster.connection import Connection
from stokehold.controllers.settings import Settings
from stokehold.model.snapshot import Snapshot
from stokehold.planning.scheduling.queueing import serves_namespace

USER_KINDS: tuple[type[Kind], ...] = (TrainingJob, InferencePool, DevWorkspace, GPUQueue, GPUNodePool)
MOST_COMPLAINTS = 8


def registry(settings: Settings, read: Callable[[], Snapshot]) -> kopf.OperatorRegistry:
    """The handlers: login, start-up, and a validating webhook for each kind that users write."""
    handlers = kopf.OperatorRegistry()
    kubeconfig, webhook = settings.kubeconfig, settings.webhook

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.AiohttpSession:
        connection = await Connection.load(kubeconfig)
        authorization = await connection.authorization()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=connection.tls or True),
            headers={"Authorization": authorization} if authorization else {},
        )
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=session)

    @kopf.on.startup(registry=handlers)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.peering.standalone = True
        settings.networking.request_timeout = 30
        if webhook is not None:
            settings.admission.managed = None  # the chart renders the configuration; kopf's own vanishes on exit
            settings.admission.server = kopf.WebhookServer(
                addr=webhook.address, port=webhook.port, certfile=webhook.certificate, pkeyfile=webhook.key
            )

    if webhook is not None:
        for kind in USER_KINDS:
            _register(handlers, kind, read)
    return handlers


async def serve(settings: Settings, read: Callable[[], Snapshot], stop: asyncio.Event) -> None:
    """Run kopf until `stop` is set or it gets a signal; its end is the end of the process."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    await kopf.operator(registry=registry(settings, read), standalone=True, clusterwide=True, stop_flag=stop)


def complaints(kind: type[Kind], manifest: Mapping[str, Any], snapshot: Snapshot) -> list[str]:
    """What is wrong with an object that somebody wants to write; each names its field."""
    try:
        parsed = kind.parse_strict({k: v for k, v in manifest.items() if k != "status"})
    except ValidationError as error:
        return [_sentence(problem) for problem in error.errors()[:MOST_COMPLAINTS]]
    if isinstance(parsed, TrainingJob):
        return _foreign_queue(parsed, snapshot)
    if isinstance(parsed, GPUNodePool):
        return _provider_in_use(parsed, snapshot)
    return []


def _register(handlers: kopf.OperatorRegistry, kind: type[Kind], read: Callable[[], Snapshot]) -> None:
    plural = kind.RESOURCE.plural

    # The id is the path of the webhook: the chart renders the same, and a test sends a bad object through it.
    @kopf.on.validate(GROUP, VERSION, plural, id=plural, operations=["CREATE", "UPDATE"], registry=handlers)
    def validate(body: kopf.Body, **_: Any) -> None:
        if found := complaints(kind, dict(body), read()):
            raise kopf.AdmissionError("; ".join(found), code=422)


def _foreign_queue(job: TrainingJob, snapshot: Snapshot) -> list[str]:
    """A queue that does not exist yet may come; one that serves others is refused at once."""
    name = job.spec.queue_name
    queue = snapshot.queues.get(name) if name else None
    if queue is None or serves_namespace(queue, snapshot.namespaces.get(job.metadata.namespace)):
        return []
    return [f"spec.queueName: GPUQueue {name} does not serve namespace {job.metadata.namespace}"]


def _provider_in_use(pool: GPUNodePool, snapshot: Snapshot) -> list[str]:
    """Machines can be given back only to the provider that they came from."""
    name = pool.metadata.name
    before = snapshot.node_pools.get(name)
    claims = sum(claim.spec.pool_name == name for claim in snapshot.claims.values())
    if before is None or not claims or _source(before.spec) == _source(pool.spec):
        return []
    return [f"spec.provider: {claims} nodes of the old provider are claimed; delete their GPUNodeClaims first"]


def _source(spec: GPUNodePoolSpec) -> tuple[str, str]:
    """Whose machines they are."""
    given = spec.provider
    if given is None:
        return "", ""
    kind = next(name for name in type(given).model_fields if getattr(given, name) is not None)
    return kind, given.webhook.url if given.webhook is not None else ""


def _sentence(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    return f"{path}: {problem['msg']}"
