"""A few direct calls to the API server as admin, where starting kubectl a thousand times would be too slow."""

import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

from hack.cluster.servers import ADMIN, Layout

GROUPS = {
    "/api/v1": ("events", "namespaces", "nodes", "persistentvolumeclaims", "pods", "services"),
    "/apis/apps/v1": ("deployments", "statefulsets"),
    "/apis/stokehold.dev/v1alpha1": (
        *("devworkspaces", "gpunodeclaims", "gpunodepools", "gpunodes", "gpuqueues", "inferencepools", "trainingjobs"),
    ),
}
"""Where the kinds are served that tests look at again and again."""
TIMEOUT_SECONDS = 30.0
PARALLEL_REQUESTS = 8
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


class ApiError(RuntimeError):
    """The API server refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class AdminApi:
    """Calls with the admin's certificate; each thread keeps one connection."""

    def __init__(self, layout: Layout) -> None:
        self._context = ssl.create_default_context(cafile=str(layout.ca_file))
        client = layout.client(ADMIN)
        self._context.load_cert_chain(client.certificate, client.key)
        self._address = urlsplit(layout.url).netloc
        self._local = threading.local()
        self._connections: list[http.client.HTTPSConnection] = []

    def read(self, plural: str, name: str = "", *, namespace: str = "", selector: str = "") -> Any:
        """One object, or without a name the list; without a namespace that of all, or a kind that has none."""
        (group,) = (group for group, plurals in GROUPS.items() if plural in plurals)
        place = f"/namespaces/{namespace}" if namespace else ""
        query = f"?labelSelector={quote(selector)}" if selector else ""
        return self.call("GET", "/".join(filter(None, (f"{group}{place}", plural, name))) + query)

    def call(self, method: str, path: str, body: object = None, content: str = "application/json") -> Any:
        """The decoded answer; an ApiError for anything but a success."""
        payload = None if body is None else json.dumps(body).encode()
        try:
            status, answer = self._exchange(method, path, payload, content)
        except (ConnectionError, ssl.SSLEOFError):
            # The server closes connections that were idle; nothing was sent on this one.
            status, answer = self._exchange(method, path, payload, content)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(status, _message(answer))
        return json.loads(answer)

    def _exchange(self, method: str, path: str, payload: bytes | None, content: str) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, path, payload, {"Content-Type": content})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request of this thread connects anew
            raise

    def create_all(self, path: str, objects: Iterable[object]) -> None:
        """Creates many objects in parallel."""
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            for _ in pool.map(lambda body: self.call("POST", path, body), objects):
                pass

    def close(self) -> None:
        """Ends every connection."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _connection(self) -> http.client.HTTPSConnection:
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPSConnection(self._address, context=self._context, timeout=TIMEOUT_SECONDS)
            self._local.connection = connection
            self._connections.append(connection)
        return connection


class Health:
    """Asks servers whether they are ready."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def is_ready(self, url: str) -> bool:
        """Whether the URL answers with a success."""
        parts = urlsplit(url)
        connection = self._connect(parts.scheme, parts.netloc)
        with contextlib.closing(connection):
            try:
                connection.request("GET", parts.path)
                return connection.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False

    def _connect(self, scheme: str, address: str) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
        pki = self._layout.pki
        is_etcd = address == urlsplit(self._layout.address("etcd")).netloc
        authority, user = ("etcd-ca", "etcd-client") if is_etcd else ("ca", ADMIN)
        context = ssl.create_default_context(cafile=str(pki / f"{authority}.crt"))
        client = self._layout.client(user)
        context.load_cert_chain(client.certificate, client.key)
        return http.client.HTTPSConnection(address, context=context, timeout=TIMEOUT_SECONDS)


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace")[:500]
