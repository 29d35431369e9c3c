"""Writes the status of this node's GPUNode, and nothing else in the cluster.

A client of its own: the operator's needs 57 MiB for the `kubernetes` package, of the 80 MiB that
the whole agent may use. It knows service accounts and kubeconfigs with certificates or tokens.
"""

import base64
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from stokehold.agent.publish import Status, StoreError

GROUP, VERSION, KIND, PLURAL = "stokehold.dev", "v1alpha1", "GPUNode", "gpunodes"
FIELD_MANAGER = "stokehold-agent"
APPLY = "application/apply-patch+yaml"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_SECONDS = 10.0


class ConfigurationError(Exception):
    """No way to the API server is configured; a person has to mend it."""


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """Where the API server is and how we show who we are."""

    server: str
    tls: ssl.SSLContext | None
    token: str = ""
    token_file: Path | None = None
    server_name: str | None = None

    def authorization(self) -> dict[str, str]:
        """The header; the kubelet renews the file, so it is read each time."""
        token = self.token_file.read_text().strip() if self.token_file else self.token
        return {"Authorization": f"Bearer {token}"} if token else {}


def in_cluster(environment: Mapping[str, str], directory: Path = SERVICE_ACCOUNT) -> ApiAccess:
    """The access of the pod's service account."""
    try:
        host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
        tls = ssl.create_default_context(cafile=directory / "ca.crt")
    except (KeyError, OSError) as error:
        raise ConfigurationError(f"no service account: {error}; give a kubeconfig") from error
    address = f"[{host}]" if ":" in host else host
    return ApiAccess(f"https://{address}:{port}", tls, token_file=directory / "token")


def from_kubeconfig(path: Path) -> ApiAccess:
    """The access of a kubeconfig's current context; exec plugins are not for a DaemonSet."""
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        tls = _tls(cluster, user, path.parent) if cluster["server"].startswith("https") else None
    except (OSError, KeyError, TypeError, ValueError, ssl.SSLError, yaml.YAMLError) as error:
        raise ConfigurationError(f"kubeconfig {path}: {error!r}") from error
    if "exec" in user:
        raise ConfigurationError(f"kubeconfig {path}: exec plugins are not supported")
    return ApiAccess(
        server=cluster["server"].rstrip("/"),
        tls=tls,
        token=user.get("token", ""),
        token_file=path.parent / user["tokenFile"] if "tokenFile" in user else None,
        server_name=cluster.get("tls-server-name"),
    )


class KubeStatusStore:
    """The GPUNode of one node in the cluster."""

    def __init__(self, access: ApiAccess) -> None:
        self._access = access
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=access.tls or True),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            trust_env=False,
            headers={"User-Agent": FIELD_MANAGER, "Accept": "application/json"},
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def read_status(self, name: str) -> Status | None:
        """The status as it stands, None when there is none."""
        code, body = await self._send("GET", name)
        if code == 404:
            return None
        status = body.get("status")
        return status if isinstance(status, dict) else None

    async def write_status(self, name: str, status: Status) -> None:
        """Apply the status; the object is created first when it is not there."""
        code, _ = await self._send("PATCH", f"{name}/status", _object(name, {"status": status}))
        if code != 404:
            return
        await self._send("PATCH", name, _object(name, {"spec": {}}))
        code, _ = await self._send("PATCH", f"{name}/status", _object(name, {"status": status}))
        if code == 404:
            raise StoreError(f"no such kind: {PLURAL}.{GROUP}")

    async def _send(self, method: str, path: str, body: Status | None = None) -> tuple[int, dict[str, Any]]:
        """The answer's code and body; a refusal other than 404 is a StoreError."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"} if body is not None else {}
        try:
            headers = self._access.authorization()
            if body is not None:
                headers["Content-Type"] = APPLY
            async with self._session.request(
                method,
                f"{self._access.server}/apis/{GROUP}/{VERSION}/{PLURAL}/{path}",
                params=query,
                json=body,
                headers=headers,
                server_hostname=self._access.server_name,
            ) as reply:
                if reply.status >= 400 and reply.status != 404:
                    raise StoreError(f"{reply.status}: {(await reply.text())[:300]}")
                return reply.status, await reply.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise StoreError(repr(error)) from error


def _object(name: str, parts: Status) -> Status:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name},
        **parts,
    }


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise KeyError(name)


def _tls(cluster: dict[str, Any], user: dict[str, Any], home: Path) -> ssl.SSLContext:
    authority = _material(cluster, "certificate-authority", home)
    # Without an authority of its own, the system's: they cost megabytes.
    context = ssl.create_default_context(cadata=authority.decode() or None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = _material(user, "client-certificate", home)
    key = _material(user, "client-key", home)
    if certificate and key:
        # OpenSSL takes the chain from files only.
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _material(section: dict[str, Any], name: str, home: Path) -> bytes:
    if encoded := section.get(f"{name}-data"):
        return base64.b64decode(encoded)
    return (home / section[name]).read_bytes() if name in section else b""
