"""The smallest service that speaks Stokehold's webhook protocol. It remembers machines in memory and makes none.

    TOKEN=secret SIGNING_KEY=key CAPACITY=8 python webhook_server.py 9000

Where it says MAKE and DESTROY, call your cloud; keep `machines` in a database.
"""

import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN, KEY = os.environ.get("TOKEN", ""), os.environ.get("SIGNING_KEY", "")
CAPACITY = int(os.environ.get("CAPACITY", "8"))
machines: dict[str, dict] = {}  # by request id
lock = Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        wanted = json.loads(self.body)
        with lock:  # one request id, one machine, however often and however fast it is asked for
            known = machines.get(wanted["requestId"])
            if known is None and len(machines) >= CAPACITY:
                return self.answer(409, {"error": {"reason": "Capacity", "message": f"all {CAPACITY} are taken"}})
            if known is None:
                known = {"id": f"vm-{wanted['requestId']}", "requestId": wanted["requestId"], "zone": wanted["zone"]}
                known |= {"owner": wanted["owner"], "pool": wanted["pool"], "instanceType": "example-8gpu"}
                known["launchedAt"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                machines[wanted["requestId"]] = known  # MAKE, with wanted["labels"], ["taints"], ["expiresAt"]
        return self.answer(200, known)

    def do_GET(self):
        asked = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        found = [
            m for m in list(machines.values()) if (m["owner"], m["pool"]) == (asked.get("owner"), asked.get("pool"))
        ]
        self.answer(200, {"instances": found})

    def do_DELETE(self):
        gone = unquote(self.path.rsplit("/", 1)[1])
        with lock:
            for request_id in [r for r, m in machines.items() if m["id"] == gone]:
                del machines[request_id]  # DESTROY
        self.answer(200, {})

    def parse_request(self):  # before any of the above: who asks?
        return super().parse_request() and (self.is_trusted() or self.answer(401, {"error": {"reason": "Auth"}}))

    def is_trusted(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        at = self.headers.get("Stokehold-Timestamp", "0")
        text = b"\n".join((at.encode(), self.command.encode(), self.path.encode(), self.body))
        signature = "v1=" + hmac.new(KEY.encode(), text, "sha256").hexdigest()
        signed = hmac.compare_digest(signature, self.headers.get("Stokehold-Signature", ""))
        fresh = at.isdigit() and abs(time.time() - int(at)) < 300
        token = hmac.compare_digest(f"Bearer {TOKEN}", self.headers.get("Authorization", ""))
        return (token or not TOKEN) and (not KEY or (signed and fresh))

    def answer(self, status, body):
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
