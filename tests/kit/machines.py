"""A cloud of machines behind the webhook protocol that misbehaves on request, and keeps an honest ledger."""

import hmac
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote

from hack.cluster import LocalCluster

Machine = dict[str, Any]

TOKEN, SIGNING_KEY = "a-token", "a-key"


class MachineCloud:
    """Machines by request id; each becomes a Node of the cluster. `misbehave` says how POSTs are answered."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.misbehave: Callable[[MachineCloud, Machine, Handler], bool] = lambda *_: False
        """Called with each POST's body; True when it has answered by itself."""
        self.machines: dict[str, Machine] = {}
        self.most = 0
        self.made: dict[str, int] = {}
        """By request id: how often a machine was made."""
        self.posts: dict[str, int] = {}
        self.expiry: dict[str, str] = {}
        """By request id: when it should end the machine by itself."""
        self._cluster = cluster
        self._lock = threading.Lock()
        cloud = self

        class Bound(Handler):
            service = cloud

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for machine in list(self.machines.values()):
            self._cluster.kubectl("delete", "node", machine["nodeName"], "--ignore-not-found", "--wait=false")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def make(self, wanted: Machine) -> Machine:
        """One machine for one request id, however often it is asked for; its node joins at once."""
        request_id = wanted["requestId"]
        with self._lock:
            if request_id not in self.machines:
                self.made[request_id] = self.made.get(request_id, 0) + 1
                self.machines[request_id] = {
                    "id": f"vm-{request_id}",
                    "requestId": request_id,
                    "zone": wanted["zone"],
                    "nodeName": wanted["claim"],
                    "launchedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                }
                self.most = max(self.most, len(self.machines))
                self.expiry[request_id] = wanted["expiresAt"]
                self._join(wanted)
            return self.machines[request_id]

    def destroy(self, machine_id: str) -> None:
        with self._lock:
            for request_id in [r for r, m in self.machines.items() if m["id"] == machine_id]:
                name = self.machines.pop(request_id)["nodeName"]
                self._cluster.kubectl("delete", "node", name, "--ignore-not-found", "--wait=false")

    def _join(self, wanted: Machine) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        amounts = {"memory": "512Gi", **wanted["resources"]}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": wanted["claim"],
                "labels": {**wanted["labels"], "sim.stokehold.dev/kubelet": "alive"},
            },
            "spec": {"providerID": f"vm-{wanted['requestId']}", "taints": wanted["taints"]},
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}],
            },
        }
        self._cluster.kubectl("create", "-f", "-", input=json.dumps(node))


class Handler(BaseHTTPRequestHandler):
    service: MachineCloud
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.is_trusted(body):
            self.answer(401, {})
            return
        wanted = json.loads(body)
        self.service.posts[wanted["requestId"]] = self.service.posts.get(wanted["requestId"], 0) + 1
        if not self.service.misbehave(self.service, wanted, self):
            self.answer(200, self.service.make(wanted))

    def do_GET(self) -> None:
        if not self.is_trusted():
            self.answer(401, {})
            return
        self.answer(200, {"instances": list(self.service.machines.values())})

    def do_DELETE(self) -> None:
        if not self.is_trusted():
            self.answer(401, {})
            return
        self.service.destroy(unquote(self.path.rsplit("/", 1)[1]))
        self.answer(200, {})

    def is_trusted(self, body: bytes = b"") -> bool:
        """Whether token and signature are those of the Secret."""
        text = b"\n".join((self.headers.get("Stokehold-Timestamp", "").encode(), self.command.encode()))
        text += b"\n" + self.path.encode() + b"\n" + body
        signature = "v1=" + hmac.new(SIGNING_KEY.encode(), text, "sha256").hexdigest()
        trusted = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        return trusted and self.headers.get("Stokehold-Signature") == signature

    def answer(self, status: int, body: object) -> None:
        payload = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)
        except OSError:
            pass  # the operator was killed while it waited

    def hang_up(self) -> None:
        """End the connection without a word."""
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass
