"""How to reach the API server and as whom. What is asked of it does not belong here.

The only file that touches the `kubernetes` package: configuration and credentials are its job
(kubeconfig, exec plugins, client certificates, service account), the requests are ours.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import urllib3
import yaml
from kubernetes import client as blocking
from kubernetes import config as blocking_config
from kubernetes.aio import client as aio
from kubernetes.aio import config as aio_config
from kubernetes.client.rest import RESTClientObject

from stokehold.cluster.errors import ConnectError, UnavailableError

# The kubelet renews a projected token long before it expires; client-go also looks once a minute.
TOKEN_REFRESH_SECONDS = 60.0
LOAD_TIMEOUT_SECONDS = 30.0


class Connection:
    """Server address, TLS context and a token that stays fresh."""

    def __init__(
        self, kubeconfig: str | None, context: str | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kubeconfig = kubeconfig_path(kubeconfig)
        self._context = context
        self._clock = clock
        self._configuration: Any = None
        self._loader: Any = None
        self._loaded_at = clock()
        self._refreshing = asyncio.Lock()
        self.tls: ssl.SSLContext | None = None

    @classmethod
    async def load(cls, kubeconfig: str | None = None, context: str | None = None) -> Connection:
        """Load the configuration of a context, by default the current one; ConnectError says what is wrong with it."""
        connection = cls(kubeconfig, context)
        await connection._load()
        return connection

    @property
    def server(self) -> str:
        """The base URL, without a slash at the end."""
        return str(self._configuration.host).rstrip("/")

    @property
    def server_hostname(self) -> str | None:
        """The name in the server's certificate, where it differs from the URL's."""
        return self._configuration.tls_server_name or None

    @property
    def proxy(self) -> str | None:
        """The kubeconfig's `proxy-url`; proxies in the environment are not for the API server."""
        return self._configuration.proxy or None

    async def authorization(self) -> str | None:
        """The Authorization header, refreshed when due; None with client certificates."""
        token: str | None = self._configuration.api_key.get("BearerToken")
        if token and self._clock() >= self._loaded_at + TOKEN_REFRESH_SECONDS:
            await self.refresh()
            token = self._configuration.api_key.get("BearerToken")
        return token

    async def refresh(self, *, refused: str | None = None) -> None:
        """Read the credentials again; `refused` is a header that the server answered with 401."""
        async with self._refreshing:
            if refused and refused != self._configuration.api_key.get("BearerToken"):
                return  # another request has already fetched a new one
            if not refused and self._clock() < self._loaded_at + TOKEN_REFRESH_SECONDS:
                return
            try:
                await self._reload(forced=refused is not None)
            except ConnectError as error:
                raise UnavailableError(0, "CredentialsUnavailable", str(error)) from error

    async def _reload(self, *, forced: bool) -> None:
        self._loaded_at = self._clock()
        if self._loader is None or forced:
            await self._load()
            return
        if _has_exec_plugin_without_expiry(self._loader):
            return  # run again only when the server refuses what it gave
        await _bounded(self._loader.load_and_set(self._configuration))

    async def _load(self) -> None:
        configuration = aio.Configuration()
        configuration.proxy = None
        if self._kubeconfig is None:
            _in_cluster(aio_config.load_incluster_config, configuration)
        else:
            self._loader = await _bounded(
                aio_config.load_kube_config(
                    config_file=self._kubeconfig,
                    context=self._context,
                    client_configuration=configuration,
                    persist_config=False,
                )
            )
        self._configuration = configuration
        self._loaded_at = self._clock()
        self.tls = _tls(configuration, self.tls)


class BlockingHttp(Protocol):
    """One blocking request: status and body, or UnavailableError if `timeout` seconds pass."""

    def __call__(self, method: str, path: str, body: dict[str, Any] | None, timeout: float) -> tuple[int, bytes]:  # noqa: D102 - the class says it
        ...


def blocking_http(kubeconfig: str | None = None) -> BlockingHttp:
    """Requests for a thread that shares nothing with the event loop: no session, token or pool."""
    configuration = blocking.Configuration()
    configuration.proxy = None
    configuration.retries = urllib3.Retry(False)
    configuration.connection_pool_maxsize = 1
    path = kubeconfig_path(kubeconfig)
    if path is None:
        _in_cluster(blocking_config.load_incluster_config, configuration)
    else:
        _load_blocking(path, configuration)
    rest = RESTClientObject(configuration)

    def request(method: str, path: str, body: dict[str, Any] | None, timeout: float) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            token = configuration.get_api_key_with_prefix("BearerToken")
            if token:
                headers["Authorization"] = token
            reply = rest.request(method, configuration.host + path, headers, body, _request_timeout=timeout)
            return reply.status, reply.read()
        except (urllib3.exceptions.HTTPError, blocking.ApiException, OSError) as error:
            raise UnavailableError(0, "NoAnswer", str(error) or repr(error)) from error
        except blocking_config.ConfigException as error:
            raise UnavailableError(0, "CredentialsUnavailable", str(error)) from error

    return request


def kubeconfig_path(explicit: str | None) -> str | None:
    """The kubeconfig to use, in kubectl's order; None means the pod's service account."""
    if explicit:
        return explicit
    if from_environment := os.environ.get("KUBECONFIG"):
        return from_environment
    home = Path.home() / ".kube" / "config"
    if home.is_file():
        return str(home)
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return None
    raise ConnectError("no cluster: pass --kubeconfig, set KUBECONFIG, or run in a pod with a service account")


def _in_cluster(load: Callable[..., None], configuration: Any) -> None:
    try:
        load(client_configuration=configuration)
    except (aio_config.ConfigException, blocking_config.ConfigException, OSError) as error:
        raise ConnectError(f"service account: {error}") from error


def _load_blocking(path: str, configuration: Any) -> None:
    try:
        blocking_config.load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
    except (blocking_config.ConfigException, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConnectError(f"kubeconfig {path}: {error}") from error


async def _bounded(loading: Any) -> Any:
    """Await the package's loader: exec plugins may hang, and a malformed file is a TypeError."""
    try:
        async with asyncio.timeout(LOAD_TIMEOUT_SECONDS):
            return await loading
    except (aio_config.ConfigException, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConnectError(f"kubeconfig: {str(error) or repr(error)}") from error


def _has_exec_plugin_without_expiry(loader: Any) -> bool:
    user = loader._user  # noqa: SLF001 - the package tells nowhere else which kind of user it loaded
    return bool(user) and "exec" in user and not hasattr(loader, "exec_plugin_expiry")


def _tls(configuration: Any, current: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """A context that verifies the server; on a reload the same, with the new certificates."""
    if not str(configuration.host).startswith("https"):
        return None
    try:
        if current is None:
            context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        else:
            context = current
            if configuration.ssl_ca_cert:
                context.load_verify_locations(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConnectError(f"certificates: {error}") from error
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def current_namespace(explicit: str | None = None, context: str | None = None) -> str:
    """The namespace of the kubeconfig's context, or of the pod; "default" where neither names one."""
    path = kubeconfig_path(explicit)
    if path is None:
        own = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
        return own.read_text().strip() if own.is_file() else "default"
    try:
        contexts, chosen = blocking_config.list_kube_config_contexts(config_file=path)
    except (blocking_config.ConfigException, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConnectError(f"kubeconfig {path}: {error}") from error
    if context is not None:
        chosen = next((entry for entry in contexts if entry["name"] == context), None)
        if chosen is None:
            names = ", ".join(entry["name"] for entry in contexts)
            raise ConnectError(f"kubeconfig {path} has no context {context}; it has {names}")
    return str(chosen["context"].get("namespace") or "default")
