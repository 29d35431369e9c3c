"""kopf's part: it serves admission for our kinds, and ends the process in order.

It watches nothing. The caches come from our own informers, which lose no deletes and cost a fraction
(docs/designs/0001), so kopf runs on every replica, standbys included, and admission has no single point.
Rules of one object stand in the CRDs as CEL; here are those that need more. Whatever is refused here, the planners
refuse again as a reason to wait: the webhook is the quicker answer, never the only guard.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import aiohttp
import kopf
from aiohttp import web
from pydantic import ValidationError

from stokehold.api.base import Kind
from stokehold.api.names import GROUP, VERSION
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePool, GPUNodePoolSpec
from stokehold.api.v1alpha1.gpu_queue import GPUQueue
from stokehold.api.v1alpha1.inference_pool import InferencePool
from stokehold.api.v1alpha1.training_job import TrainingJob
from stokehold.cluster.connection import Connection
from stokehold.cluster.nesting import DEEPEST, decode, is_nested_deeper
from stokehold.controllers.certificate import Certificate
from stokehold.controllers.settings import Settings, Webhook
from stokehold.model.snapshot import Claim, Namespace, NodePool, PriorityClass, Queue
from stokehold.observability import metrics
from stokehold.planning.culling.exemption import why_too_long
from stokehold.planning.culling.signals import NOT_MEASURED
from stokehold.planning.scheduling.queueing import serves_namespace

USER_KINDS: tuple[type[Kind], ...] = (TrainingJob, InferencePool, DevWorkspace, GPUQueue, GPUNodePool)
MOST_COMPLAINTS = 8
REFUSED = 422
TOO_DEEP = f"spec: must not be nested more than {DEEPEST} levels deep"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an object is judged against: the caches themselves, for a copy of the cluster per request is too much."""

    now: Callable[[], datetime]
    queues: Mapping[str, Queue]
    namespaces: Mapping[str, Namespace]
    priority_classes: Mapping[str, PriorityClass]
    node_pools: Mapping[str, NodePool] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with an object, and what its author should know; each sentence begins with the field."""

    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def judge(
    kind: type[Kind], manifest: Mapping[str, Any], around: Surroundings, before: Mapping[str, Any] | None = None
) -> Verdict:
    """Return the verdict on an object that somebody wants to write; `before` is what it would replace.

    A field that we do not know has passed the API server: its CRDs are newer than we are. What was wrong before, and is
    not touched, was stored under an older rule: it must not stand in the way of a stop, or of a finalizer.
    """
    if is_nested_deeper(manifest.get("spec"), DEEPEST):
        return Verdict((TOO_DEEP,))
    try:
        parsed = kind.read({k: v for k, v in manifest.items() if k != "status"})
    except ValidationError as error:
        stored = _problems(kind, before or {})
        fresh = [problem for problem in error.errors() if _mark(problem) not in stored]
        return Verdict(tuple(_sentence(problem) for problem in fresh[:MOST_COMPLAINTS]))
    match parsed:
        case TrainingJob():
            return _judge_job(parsed, around)
        case GPUNodePool():
            return Verdict(_provider_in_use(parsed, around))
        case DevWorkspace():
            is_new = _exemption(manifest) != _exemption(before or {})
            wrong = why_too_long(parsed.spec.idle, around.now()) if is_new else None
            return Verdict((wrong,) if wrong else (), _unmeasured_signals(parsed))
        case _:
            return Verdict()


async def serve(settings: Settings, around: Surroundings, stop: asyncio.Event, listening: asyncio.Event) -> None:
    """Run kopf until `stop` is set or it gets a signal; its end is the end of the process."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # kopf calls a refused object an error of the operator; one that has a traceback is.
    logging.getLogger("kopf.objects").addFilter(lambda record: record.exc_info is not None)
    handlers = registry(settings, around, listening)
    await kopf.operator(registry=handlers, standalone=True, clusterwide=True, stop_flag=stop)


def registry(settings: Settings, around: Surroundings, listening: asyncio.Event) -> kopf.OperatorRegistry:
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
            settings.admission.server = _Server(webhook, listening)

    if webhook is not None:
        for kind in USER_KINDS:
            _register(handlers, kind, around)
    return handlers


def _register(handlers: kopf.OperatorRegistry, kind: type[Kind], around: Surroundings) -> None:
    plural = kind.RESOURCE.plural

    # The id is the path of the webhook: the chart renders the same. Async, for the caches belong to this thread.
    @kopf.on.validate(GROUP, VERSION, plural, id=plural, operations=["CREATE", "UPDATE"], registry=handlers)
    async def validate(body: kopf.Body, warnings: list[str], **rest: Any) -> None:
        verdict = judge(kind, dict(body), around, rest.get("old"))
        warnings.extend(verdict.warnings)
        if verdict.refusals:
            raise kopf.AdmissionError("; ".join(verdict.refusals), code=REFUSED)


class _Server(kopf.WebhookServer):
    """kopf's server, which allows nothing that it has no rule for, and calls its own failures failures."""

    def __init__(self, webhook: Webhook, listening: asyncio.Event) -> None:
        super().__init__(
            addr=webhook.address,
            port=webhook.port,
        )
        self._listening = listening
        self._certificate = Certificate(webhook.certificate, webhook.key)

    async def __call__(self, fn: kopf.WebhookFn) -> AsyncIterator[kopf.WebhookClientConfig]:
        paths = {kind.RESOURCE.plural for kind in USER_KINDS}

        async def answer(request: Any, *, webhook: str | None = None, **rest: Any) -> Any:
            if webhook not in paths:
                raise web.HTTPNotFound(reason=f"no rules for /{webhook}; there are {', '.join(sorted(paths))}")
            try:
                response = await fn(request, webhook=webhook, **rest)
            except Exception:
                metrics.ADMISSIONS.labels(webhook, "failed").inc()
                raise
            return _counted(webhook, response)

        generator = cast("AsyncGenerator[kopf.WebhookClientConfig]", super().__call__(answer))
        following = asyncio.create_task(self._certificate.follow())
        try:
            async with aclosing(generator) as configurations:
                async for configuration in configurations:
                    await self._certificate.served.wait()
                    self._listening.set()
                    yield configuration
        finally:
            following.cancel()

    def _build_ssl(self) -> tuple[bytes | None, ssl.SSLContext | None]:
        """kopf's own reads the files anew, and ends the process if it cannot."""
        return None, self._certificate.context

    @staticmethod
    async def _serve(fn: kopf.WebhookFn, request: web.Request) -> web.Response:
        """kopf's own, which fails for what no parser reads to its end."""
        try:
            return await kopf.WebhookServer._serve(fn, request)  # noqa: SLF001 - it has no other door
        except RecursionError:
            asked = decode(await request.read(), dict[str, Any])
            status = {"code": REFUSED, "message": TOO_DEEP}
            response = {"uid": asked["request"]["uid"], "allowed": False, "status": status}
            return web.json_response({"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": response})


def _counted(plural: str, response: Any) -> Any:
    """The response; an exception of ours is no verdict, so the webhook's failure policy decides about it."""
    outcome = response["response"]
    if outcome["allowed"]:
        metrics.ADMISSIONS.labels(plural, "allowed").inc()
    elif outcome["status"]["code"] == REFUSED:
        metrics.ADMISSIONS.labels(plural, "refused").inc()
    else:
        metrics.ADMISSIONS.labels(plural, "failed").inc()
        raise web.HTTPInternalServerError(reason="the operator failed to judge the object; its log says why")
    return response


def _judge_job(job: TrainingJob, around: Surroundings) -> Verdict:
    """What does not exist yet may come, so it is a warning; a queue that serves others is refused at once.

    The chart's webhook asks only about jobs that name one of these (templates/webhook.yaml): a new rule goes there too.
    """
    warnings = []
    priority, queue = job.spec.priority_class_name, job.spec.queue_name
    if priority and priority not in around.priority_classes:
        warnings.append(f"spec.priorityClassName: PriorityClass {priority} does not exist; the job waits until it does")
    if queue and queue not in around.queues:
        warnings.append(f"spec.queueName: GPUQueue {queue} does not exist; the job waits until it does")
    return Verdict(_foreign_queue(job, around), tuple(warnings))


def _unmeasured_signals(workspace: DevWorkspace) -> tuple[str, ...]:
    signals = workspace.spec.idle.signals
    asked = [name for name in NOT_MEASURED if signals is not None and getattr(signals, name) is not None]
    never = "is not measured yet: while it is asked for, the workspace is never stopped for being idle"
    return tuple(f"spec.idle.signals.{name}: {never}" for name in asked)


def _exemption(manifest: Mapping[str, Any]) -> Any:
    """As it is written; one that is stored already is told in the status, and must not stand in the way of a stop."""
    return manifest.get("spec", {}).get("idle", {}).get("exempt")


def _foreign_queue(job: TrainingJob, around: Surroundings) -> tuple[str, ...]:
    namespace = around.namespaces.get(job.metadata.namespace)
    queue = around.queues.get(job.spec.queue_name or "")
    # The cache may not have heard of a namespace that was made just now; the planner will.
    if namespace is None or queue is None or serves_namespace(queue, namespace):
        return ()
    own = sorted(name for name, other in around.queues.items() if serves_namespace(other, namespace))
    allowed = f"allowed: {', '.join(own)}" if own else "no queue does; ask the platform team to open one"
    return (f"spec.queueName: GPUQueue {queue.name} does not serve namespace {namespace.name}; {allowed}",)


def _provider_in_use(pool: GPUNodePool, around: Surroundings) -> tuple[str, ...]:
    """Machines can be given back only to the provider that they came from."""
    name = pool.metadata.name
    before = around.node_pools.get(name)
    claims = sum(claim.spec.pool_name == name for claim in around.claims.values())
    if before is None or not claims or _source(before.spec) == _source(pool.spec):
        return ()
    return (f"spec.provider: {claims} nodes of the old provider are claimed; delete their GPUNodeClaims first",)


def _source(spec: GPUNodePoolSpec) -> tuple[str, str]:
    """Whose machines they are."""
    given = spec.provider
    if given is None:
        return "", ""
    kind = next(name for name in type(given).model_fields if getattr(given, name) is not None)
    return kind, given.webhook.url if given.webhook is not None else ""


def _problems(kind: type[Kind], stored: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    try:
        kind.read({k: v for k, v in stored.items() if k != "status"})
    except ValidationError as error:
        return {_mark(problem) for problem in error.errors()}
    return set()


def _mark(problem: Any) -> tuple[Any, ...]:
    """The same place, rule and value give the same."""
    return (problem["loc"], problem["type"], repr(problem["input"]))


def _sentence(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    return f"{path}: {problem['msg']}"
